// What a kernel for Hopper needs to run on a CPU: every thread of a block is a thread of this process, and what it has
// assembly for is done here, products and their layouts of registers and shared memory after NVIDIA's PTX ISA 9.0.
// Sums are double and rounded once: a tensor core's are not.

#include <algorithm>
#include <barrier>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>
using std::max, std::min;
#define __device__
#define __forceinline__ inline
struct Index { int x; };
static thread_local Index threadIdx, blockIdx;
static Index blockDim, gridDim;

// ---- bits
template <class To, class From> To bits(From x) { To r; static_assert(sizeof r == sizeof x); memcpy(&r, &x, sizeof r); return r; }
float __frcp_rn(float x) { return 1 / x; }

// ---- numbers; two float16 in a register
typedef _Float16 half;
half first(u32 x) { return bits<half>((unsigned short)x); }
half second(u32 x) { return bits<half>((unsigned short)(x >> 16)); }
u32 pair(double a, double b) { return bits<unsigned short>((half)a) | (u32)bits<unsigned short>((half)b) << 16; }
double clamped(double x) { return x > 0 ? min(x, 1.0) : 0; }
u32 both(float a, float b) { return pair(a, b); }
float low_of(u32 x) { return first(x); }
float high_of(u32 x) { return second(x); }
u32 larger(u32 a, u32 b) { return pair(max(first(a), first(b)), max(second(a), second(b))); }
u32 fma2(u32 a, u32 b, u32 c) {
  return pair((double)first(a) * (double)first(b) + (double)first(c), (double)second(a) * (double)second(b) + (double)second(c));
}
u32 fma2_to_1(u32 a, u32 b, u32 c) {
  return pair(clamped((double)first(a) * (double)first(b) + (double)first(c)), clamped((double)second(a) * (double)second(b) + (double)second(c)));
}
float exp2_fast(float x) { return exp2f(x); }
u32 permute(u32 a, u32 b, u32 selector) {
  u64 from = (u64)b << 32 | a;
  u32 r = 0;
  for (int i = 0; i < 4; i++) r |= (u32)(from >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return r;
}
float of_e4m3(unsigned char x) {
  int exponent = x >> 3 & 15, mantissa = x & 7;
  float size = (x & 127) == 127 ? NAN : exponent ? ldexpf(8 + mantissa, exponent - 10) : ldexpf(mantissa, -9);
  return x & 128 ? -size : size;
}
u32 bfloat16(float x) { u32 u = bits<u32>(x); return (u + 0x7fff + (u >> 16 & 1)) >> 16; }
u32 pack(float lo, float hi) { return bfloat16(lo) | bfloat16(hi) << 16; }

// ---- threads
struct Warp { std::barrier<> together{32}; float values[32]; };
struct Warpgroup { std::barrier<> together{128}; u32 a[128][4]; };
static std::vector<std::unique_ptr<Warp>> warps;
static std::vector<std::unique_ptr<Warpgroup>> warpgroups;
template <class Use> auto exchange(float value, Use use) {
  Warp& warp = *warps[threadIdx.x / 32];
  warp.values[threadIdx.x & 31] = value;
  warp.together.arrive_and_wait();
  auto result = use(warp.values);
  warp.together.arrive_and_wait();
  return result;
}
float __shfl_xor_sync(u32, float x, int mask) { return exchange(x, [&](float* all) { return all[(threadIdx.x & 31) ^ mask]; }); }
bool __any_sync(u32, bool x) { return exchange(x, [](float* all) { return std::any_of(all, all + 32, [](float y) { return y != 0; }); }); }

// ---- barriers of shared memory, by address
struct Barrier { int count, pending; long bytes; u32 phase; };
static std::map<u32, Barrier> barriers;
static std::mutex lock;
static std::condition_variable changed;
void arrive(u32 at, int arrivals, long bytes) {
  std::lock_guard held(lock);
  Barrier& b = barriers.at(at);
  b.pending -= arrivals, b.bytes += bytes;
  if (b.pending == 0 && b.bytes == 0) b.phase ^= 1, b.pending = b.count, changed.notify_all();
}
void barrier_init(u32 at, int count) { barriers[at] = {count, count, 0, 0}; }
void barrier_expect(u32 at, int bytes) { arrive(at, 1, bytes); }
void barrier_arrive(u32 at) { arrive(at, 1, 0); }
void barrier_wait(u32 at, u32 phase) {
  std::unique_lock held(lock);
  changed.wait(held, [&] { return barriers.at(at).phase != phase; });
}

// ---- shared memory; a swizzle moves 16-byte units within rows of 64 or 128 bytes
static std::vector<unsigned char> shared;
unsigned char& swizzled(u32 at, int row) { return shared.at(row == 128 ? at ^ (at >> 7 & 7) << 4 : at ^ (at >> 7 & 3) << 4); }
struct TensorMap { const unsigned char* from; long sizes[3], strides[2]; int box[3], swizzle; };
void copy_tile(u32 to, const TensorMap* map, u32 bar, int x, int y, int z) {
  int wide = map->box[0], high = map->box[1], deep = map->box[2];
  for (int k = 0; k < deep; k++)
    for (int j = 0; j < high; j++)
      for (int i = 0; i < wide; i++) {
        bool inside = x + i < map->sizes[0] && y + j < map->sizes[1] && z + k < map->sizes[2];
        const unsigned char* from = map->from + x + i + (y + j) * map->strides[0] + (z + k) * map->strides[1];
        swizzled(to + (k * high + j) * wide + i, map->swizzle) = inside ? *from : 0;
      }
  arrive(bar, 0, -(long)wide * high * deep);
}

// ---- products: of 64 rows, 32 bytes of each, a warpgroup's registers with a matrix in shared memory
void mma_fence() {}
void mma_commit() {}
template <int N> void mma_wait() {}
template <class T> void pin(T&) {}
u32 units(u32 address) { return address >> 4 | 1u << 16; }
u64 descriptor(u32 low) { return (u64)0x40000040u << 32 | low; }
unsigned char of_b(u64 b, int row, int k) {
  int bytes = b >> 62 == 1 ? 128 : 64;
  return swizzled((u32)((b & 0x3fff) << 4) + row / 8 * (u32)((b >> 32 & 0x3fff) << 4) + row % 8 * bytes + k, bytes);
}
unsigned char of_a(const Warpgroup& group, int row, int k) {
  const u32* registers = group.a[row / 16 * 32 + row % 8 * 4 + k % 16 / 4];
  return registers[row % 16 / 8 + k / 16 * 2] >> 8 * (k % 4);
}
double product(const Warpgroup& group, int row, u64 b, int column, bool float16) {
  double sum = 0;
  for (int k = 0; k < 32; k += 1 + float16) {
    if (!float16) sum += (double)of_e4m3(of_a(group, row, k)) * of_e4m3(of_b(b, column, k));
    else sum += (double)first(of_a(group, row, k) | of_a(group, row, k + 1) << 8) * (double)first(of_b(b, column, k) | of_b(b, column, k + 1) << 8);
  }
  return sum;
}
template <int N> void multiply(float (&d)[N], const u32 (&a)[4], u64 b, int keep, bool float16) {
  Warpgroup& group = *warpgroups[threadIdx.x / 128];
  int thread = threadIdx.x & 127;
  memcpy(group.a[thread], a, sizeof group.a[thread]);
  group.together.arrive_and_wait();
  for (int i = 0; i < N; i++) {
    int row = thread / 32 * 16 + thread % 32 / 4 + 8 * (i >> 1 & 1), column = i / 4 * 8 + thread % 4 * 2 + i % 2;
    d[i] = (keep ? d[i] : 0) + product(group, row, b, column, float16);
  }
  group.together.arrive_and_wait();
}
void mma_values(float (&d)[36], const u32 (&a)[4], u64 b, int keep) { multiply(d, a, b, keep, false); }
void mma_logits(u32 (&d)[32], const u32 (&a)[4], u64 b, int keep) {
  float sums[64];
  for (int i = 0; i < 64; i++) sums[i] = i & 1 ? second(d[i / 2]) : first(d[i / 2]);
  multiply(sums, a, b, keep, ROW_BYTES == 128);
  for (int i = 0; i < 32; i++) d[i] = pair(sums[2 * i], sums[2 * i + 1]);
}
