// hopper_float8.cu as one block on a CPU: program TOKENS HEADS QUERIES_KEYS VALUES OUT, files as hopper_float8.py describes
// the tensors. `kernel.inc` is the source without what hopper_on_a_cpu.h does instead.

typedef unsigned u32;
typedef unsigned long long u64;
#include "hopper_on_a_cpu.h"
#include "kernel.inc"

static std::vector<unsigned char> content(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int main(int, char** words) {
  int tokens = atoi(words[1]), heads = atoi(words[2]);
  std::vector<unsigned char> queries_keys = content(words[3]), given = content(words[4]);
  long padded = given.size() / 64 / heads;
  std::vector<unsigned short> out((size_t)tokens * heads * 64, 0x7fc0);
  Args a{queries_keys.data(), out.data(), 2L * heads * ROW_BYTES, tokens, heads};
  TensorMap map{a.qk, {ROW_BYTES, 2 * heads, tokens}, {ROW_BYTES, a.row_bytes}, {ROW_BYTES, 1, KEYS}, ROW_BYTES};
  TensorMap values{given.data(), {padded, 64, heads}, {padded, 64 * padded}, {KEYS, 64, 1}, 128};
  blockDim.x = 128 * (GROUPS + 1), gridDim.x = 1;
  Ring ring;
  ring.tiles = 1024;
  shared.assign(ring.tiles + STAGES * (STAGE + 16), 0);
  for (int i = 0; i < STAGES; i++) {
    barrier_init(ring.tiles + STAGES * STAGE + 16 * i, 1);
    barrier_init(ring.tiles + STAGES * STAGE + 16 * i + 8, 4 * GROUPS);
    std::fill_n(shared.begin() + ring.tiles + i * STAGE + TILE + 64 * KEYS, 8 * KEYS, 0x38);  // rows of ones
  }
  for (int i = 0; i < GROUPS + 1; i++) warpgroups.push_back(std::make_unique<Warpgroup>());
  for (int i = 0; i < 4 * (GROUPS + 1); i++) warps.push_back(std::make_unique<Warp>());
  int tiles = (tokens + ROWS - 1) / ROWS, stages = (tokens + KEYS - 1) / KEYS;
  std::vector<std::thread> threads;
  for (int i = 0; i < blockDim.x; i++)
    threads.emplace_back([&, i] {
      threadIdx.x = i, blockIdx.x = 0;
      if (i >= 128) consume(ring, a, i / 128 - 1, tiles * heads, tiles, stages);
      else if (i == 0) produce(&map, &values, ring, a, tiles * heads, tiles, stages);
    });
  for (std::thread& thread : threads) thread.join();
  std::ofstream(words[5], std::ios::binary).write((const char*)out.data(), out.size() * 2);
}
