// Attention forward for head_dim 64 on Hopper (sm_90a) whose softmax needs no running maximum.
//
// LayerNorm over head_dim bounds every logit, so exp2 of the raw logit cannot overflow: the loop is
// logits, exp2, add, round, product; nothing is ever rescaled. Where that bound is too large (MODE SHIFTED) a row's
// logits are lowered by a number that is known after its first tile, and rows for which it was wrong set a flag. The
// third form (RUNNING) has a running maximum: for the tiles with a flag, or for all. A block holds one producer warp, which
// streams tiles of keys and values through the tensor memory accelerator, and three warpgroups of 64 query
// rows each. Logits never leave registers: a packed logit accumulator is the A operand of the next product.
// The split into producer and consumer warpgroups is FlashAttention 3's (arXiv 2407.08608).
// Compiled at first use by hopper.py, which also says what the arguments are.

// flags: one for each 64 GROUPS queries of a head, set by SHIFTED; RUNNING does those alone that are set, or all without.
struct Args { const unsigned short* qkv; unsigned short* out; u32* flags; long long row_stride; int tokens, heads; };

// The compiler's command line gives MODE, and what hopper_common.cu in front of this file needs.
enum { PLAIN, SHIFTED, RUNNING };
// The first tile's largest weight is 2^-HEADROOM: keys a tile later found may have logits 200 above it.
constexpr float HEADROOM = 90.f, LARGEST_SUM = 1.2980742e33f;  // 2^110, leaving 2^17 for the values
// Logits: d[64 queries, n keys] (+)= a[64, 16] b[n, 16]^T, keys as rows of 128 bytes.
DEVICE void mma_logits(float (&d)[64], const u32 (&a)[4], u64 b, int keep) {
  asm volatile(
    "{ .reg .pred p; setp.ne.b32 p, %69, 0;\n"
    "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
    "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0; }"
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
      "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
      "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
      "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
      "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
      "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
      "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
      "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
}
// Products: d[64 queries, 64] += a[64, 16 keys] b[16, 64].
DEVICE void mma_values(float (&d)[32], const u32 (&a)[4], u64 b, int keep) {
  asm volatile(
    "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
    "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
    "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1; }"
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
      "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
      "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
      "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
}

// ---- softmax
// A thread's logits of 16 keys in two rows become a quarter-warp's share of the A operand.
DEVICE void weigh(const float* s, u32 (&p)[4], float (&sum)[4], const float (&shift)[2]) {
  float e[8];
#pragma unroll
  for (int i = 0; i < 8; i++) e[i] = exp2_fast(MODE == PLAIN ? s[i] : s[i] - shift[i >> 1 & 1]);
  sum[0] += e[0]; sum[1] += e[2]; sum[2] += e[1]; sum[3] += e[3];
  sum[0] += e[4]; sum[1] += e[6]; sum[2] += e[5]; sum[3] += e[7];
  p[0] = pack(e[0], e[1]); p[1] = pack(e[2], e[3]); p[2] = pack(e[4], e[5]); p[3] = pack(e[6], e[7]);
}

template <int N> DEVICE void mask(float (&s)[N], int limit) {
  const int col = (threadIdx.x & 3) * 2;
#pragma unroll
  for (int i = 0; i < N; i++)
    if (col + (i / 4) * 8 + (i & 1) >= limit) s[i] = -__int_as_float(0x7f800000);
}

// Largest logit of each of a thread's two rows; four threads share a row.
DEVICE void row_max(const float (&s)[KEYS / 2], float (&top)[2]) {
  top[0] = s[0], top[1] = s[2];
#pragma unroll
  for (int i = 0; i < KEYS / 2; i++) top[i >> 1 & 1] = fmaxf(top[i >> 1 & 1], s[i]);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    top[half] = fmaxf(top[half], __shfl_xor_sync(~0u, top[half], 1));
    top[half] = fmaxf(top[half], __shfl_xor_sync(~0u, top[half], 2));
  }
}
// What this stage's logits are lowered by; with a running maximum what was summed before shrinks with it.
template <bool FIRST> DEVICE void update_shift(const float (&s)[KEYS / 2], float (&o)[32], float (&sum)[4], float (&shift)[2]) {
  float top[2];
  if (MODE == PLAIN || (MODE == SHIFTED && !FIRST)) return;
  row_max(s, top);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    if (FIRST) {
      shift[half] = MODE == SHIFTED ? top[half] + HEADROOM : top[half];
      continue;
    }
    float higher = fmaxf(shift[half], top[half]), factor = exp2_fast(shift[half] - higher);
    shift[half] = higher, sum[half] *= factor, sum[half + 2] *= factor;
#pragma unroll
    for (int i = 0; i < 8; i++) o[4 * i + 2 * half] *= factor, o[4 * i + 2 * half + 1] *= factor;
  }
}

DEVICE void load_queries(u32 (&q)[4][4], const Args& a, int row, int head) {
  const unsigned short* base = a.qkv + head * 64 + (threadIdx.x & 3) * 2;
#pragma unroll
  for (int i = 0; i < 16; i++) {
    int r = row + (i & 1) * 8;
    q[i / 4][i % 4] = r < a.tokens ? *(const u32*)(base + r * a.row_stride + (i / 4) * 16 + (i % 4 >> 1) * 8) : 0u;
  }
}
DEVICE void store_output(const float (&o)[32], float (&sum)[4], const Args& a, int row, int head, int work) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float total = sum[half] + sum[half + 2];
    total += __shfl_xor_sync(~0u, total, 1);
    total += __shfl_xor_sync(~0u, total, 2);
    float scale = __frcp_rn(total);
    int r = row + 8 * half;
    unsigned short* at = a.out + ((long long)r * a.heads + head) * 64 + (threadIdx.x & 3) * 2;
    if (MODE == SHIFTED && r < a.tokens && !(total < LARGEST_SUM)) a.flags[work] = 1;
    if (r < a.tokens)
#pragma unroll
      for (int i = 0; i < 8; i++) *(u32*)(at + 8 * i) = pack(o[4 * i + 2 * half] * scale, o[4 * i + 2 * half + 1] * scale);
  }
}

DEVICE bool skips(const Args& a, int work) { return MODE == RUNNING && a.flags && !a.flags[work]; }

// The ragged last tile comes first: it is masked once, outside of the loop.
DEVICE void produce(const TensorMap* map, Ring ring, const Args& a, int count, int tiles, int stages) {
  for (int work = blockIdx.x; work < count; work += gridDim.x) {
    if (skips(a, work)) continue;
    int head = work / tiles;
#pragma unroll 1
    for (int j = 0; j < stages; j++) {
      int row = (j == 0 ? stages - 1 : j - 1) * KEYS;
      barrier_wait(ring.empty(), ring.phase ^ 1);
      barrier_expect(ring.full(), STAGE);
      copy_tile(ring.keys(), map, ring.full(), 0, a.heads + head, row);
      copy_tile(ring.keys() + TILE, map, ring.full(), 0, 2 * a.heads + head, row);
      ring.next();
    }
  }
}

// One stage: logits, exponentials, products; other warpgroups fill the tensor cores meanwhile.
// The first stage is the masked one.
template <bool MASK> DEVICE void attend_stage(float (&o)[32], float (&sum)[4], float (&shift)[2], const u32 (&q)[4][4], u32 keys, int limit) {
  float s[KEYS / 2];
  mma_fence();
#pragma unroll
  for (int i = 0; i < 4; i++) mma_logits(s, q[i], descriptor(keys + 2 * i), i > 0);
  mma_commit();
  mma_wait<0>();
  pin(s);
  if (MASK) mask(s, limit);
  update_shift<MASK>(s, o, sum, shift);
#pragma unroll
  for (int i = 0; i < KEYS / 16; i++) {  // 16 keys at a time: the next exponentials run under this product
    u32 p[4];
    weigh(s + 8 * i, p, sum, shift);
    mma_fence();
    mma_values(o, p, descriptor(keys + TILE / 16 + 128 * i), 1);
  }
  mma_commit();
  mma_wait<0>();
  pin(o);
}
DEVICE void consume(Ring ring, const Args& a, int group, int count, int tiles, int stages) {
  for (int work = blockIdx.x; work < count; work += gridDim.x) {
    if (skips(a, work)) continue;
    int head = work / tiles, row = first_row(work % tiles * ROWS + group * 64);
    u32 q[4][4];
    float o[32], sum[4] = {0, 0, 0, 0}, shift[2] = {0, 0};
    load_queries(q, a, row, head);
#pragma unroll
    for (int i = 0; i < 32; i++) o[i] = 0.f;
    barrier_wait(ring.full(), ring.phase);
    attend_stage<true>(o, sum, shift, q, units(ring.keys()), a.tokens - (stages - 1) * KEYS);
    release(ring.empty());
    ring.next();
#pragma unroll 1
    for (int j = 1; j < stages; j++) {
      barrier_wait(ring.full(), ring.phase);
      attend_stage<false>(o, sum, shift, q, units(ring.keys()), KEYS);
      release(ring.empty());
      ring.next();
    }
    store_output(o, sum, a, row, head, work);
  }
}

extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)
attend(const __grid_constant__ TensorMap map, const __grid_constant__ Args a) {
  extern __shared__ char memory[];
  Ring ring;
  begin(ring, memory);
  __syncthreads();
  int tiles = (a.tokens + ROWS - 1) / ROWS, stages = (a.tokens + KEYS - 1) / KEYS, group = threadIdx.x / 128;
  if (group == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
    if (threadIdx.x == 0) produce(&map, ring, a, tiles * a.heads, tiles, stages);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
    consume(ring, a, group - 1, tiles * a.heads, tiles, stages);
  }
}
