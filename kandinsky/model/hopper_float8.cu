// Attention forward for head_dim 64 on Hopper (sm_90a) with softmax's weights and values in float8 e4m3.
//
// The same split as hopper.cu's. Queries and keys are float16 where ROW_BYTES is 128, and e4m3 where it is 64. Logits are
// sums in float16 of either, two in a register, and softmax works on both at once. They are lowered by a running maximum of
// their row, which moves only when a weight would leave the format.
//
// A float8 product's accumulator keeps 13 bits behind its largest addend's first and cuts off the rest: over 25,000 keys
// small addends vanish, a third of a flat softmax. So each tile is summed from zero and added in float32 registers, as
// DeepSeek-V3 does for GEMM (arXiv 2412.19437, section 3.3.2). Products of 32 keys want four neighbouring keys in a thread
// where an accumulator of logits holds two and two: values are stored with the keys of each 16 in another order, and
// transposed, as float8 products need both operands key-major. Behind the 64 rows of values lie eight rows of ones: a
// row's sum comes out of the same product, of the weights as they were rounded.
//
// An e4m3 number's byte, read as an integer, is 8 (log2 + 7) with a straight line between powers of two. So the weight of a
// logit x in units of log2 is the byte round(8 (x - shift + 7)), at least 0: two multiply-adds and no exponential. It is
// exact at powers of two and at most 6 % too large between them (N. Schraudolph, Neural Computation 11, 1999, does it for
// float64); the sum of a row has the same weights.
// Compiled at first use by hopper_float8.py, which also says what the arguments are.

// qk: queries and keys; row_bytes: from one token to the next.
struct Args { const unsigned char* qk; unsigned short* out; long long row_bytes; int tokens, heads; };
static_assert(KEYS == 128 && (ROW_BYTES == 128 || ROW_BYTES == 64) && BEHIND == 72 * KEYS, "layout of a stage");
constexpr int OUT = 36;                 // of a thread's accumulators, 32 of values and four of ones
constexpr int CHUNKS = ROW_BYTES / 32;  // products that make logits of 64 channels
// A shift that moves gives its row's largest weight log2 TARGET, rounded up; it moves when one would be above LARGEST. The
// format ends at 448. Further down, small weights would be lost: at log2 4 and norms' weights of 2, 3 % of a sum.
constexpr float TARGET = 7.f, LARGEST = 8.5f;
constexpr int LOGITS = KEYS / 4;        // registers with two neighbouring logits of a row each
constexpr int EACH = LOGITS / (KEYS / 32);  // of them, those of 32 keys

// ---- products; operand lists of the assembler
#define R4(x, i) "+r"(x[i]), "+r"(x[i + 1]), "+r"(x[i + 2]), "+r"(x[i + 3])
#define F4(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3])
#define R16(x, i) R4(x, i), R4(x, i + 4), R4(x, i + 8), R4(x, i + 12)
#define F16(x, i) F4(x, i), F4(x, i + 4), F4(x, i + 8), F4(x, i + 12)
#define D32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
// 64-byte swizzle, 512 bytes from one group of eight rows to the next.
DEVICE u64 descriptor_keys(u32 low) { return ROW_BYTES == 128 ? descriptor(low) : ((u64)0x80000020u << 32) | low; }
// Logits: d[64 queries, 128 keys] (+)= a[64, 32 bytes] b[128, 32 bytes]^T.
DEVICE void mma_logits(u32 (&d)[LOGITS], const u32 (&a)[4], u64 b, int keep) {
#if ROW_BYTES == 128
#define LOGIT_PRODUCT "m64n128k16.f16.f16.f16", ", 1, 1, 0"
#else
#define LOGIT_PRODUCT "m64n128k32.f16.e4m3.e4m3", ", 1, 1"
#endif
#define ASSEMBLE(shape, rest) "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n" \
    "wgmma.mma_async.sync.aligned." shape " {" D32 "}, {%32, %33, %34, %35}, %36, p" rest "; }"
#define EXPANDED(x) ASSEMBLE x
  asm volatile(EXPANDED((LOGIT_PRODUCT)) : R16(d, 0), R16(d, 16) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
}
// Products: d[64 queries, 72] (+)= a[64, 32 keys] b[32, 72]; both operands key-major.
DEVICE void mma_values(float (&d)[OUT], const u32 (&a)[4], u64 b, int keep) {
  asm volatile(
    "{ .reg .pred p; setp.ne.b32 p, %41, 0;\n"
    "wgmma.mma_async.sync.aligned.m64n72k32.f32.e4m3.e4m3 {" D32 ", %32, %33, %34, %35}, {%36, %37, %38, %39}, %40, p, 1, 1; }"
    : F16(d, 0), F16(d, 16), F4(d, 32) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
}
template <int N> DEVICE void pin(u32 (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+r"(x[i]) :: "memory");
}

// ---- two float16 in a register
DEVICE u32 both(float lo, float hi) { u32 r; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo)); return r; }
DEVICE float low_of(u32 x) { float r; asm("{ .reg .b16 a, b;\nmov.b32 {a, b}, %1;\ncvt.f32.f16 %0, a; }" : "=f"(r) : "r"(x)); return r; }
DEVICE float high_of(u32 x) { float r; asm("{ .reg .b16 a, b;\nmov.b32 {a, b}, %1;\ncvt.f32.f16 %0, b; }" : "=f"(r) : "r"(x)); return r; }
DEVICE u32 larger(u32 a, u32 b) { u32 r; asm("max.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b)); return r; }
DEVICE u32 fma2(u32 a, u32 b, u32 c) { u32 r; asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; }
DEVICE u32 fma2_to_1(u32 a, u32 b, u32 c) { u32 r; asm("fma.rn.sat.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; }
DEVICE u32 permute(u32 a, u32 b, u32 selector) { u32 r; asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(selector)); return r; }

// ---- softmax
// By what the logits of a thread's two rows are lowered: whole numbers in units of log2, so that rescaling is exact.
struct Row { float shift[2]; };
// A weight's byte is STEPS of a number that goes from 0 to 1 over the SPAN binades of the format, from shift - 7 on.
constexpr float SPAN = 16.f, STEPS = 8 * SPAN;

DEVICE constexpr u32 twice(u32 half_bits) { return half_bits * 0x10001u; }
DEVICE void weigh(const u32* s, u32 (&p)[4], const Row& r) {
  u32 w[8];
  u32 scale = both(1 / SPAN, 1 / SPAN), steps = both(STEPS, STEPS), magic = twice(0x6400);  // 1024
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float begin = (7.f - r.shift[i & 1]) / SPAN;
    w[i] = fma2(fma2_to_1(s[i], scale, both(begin, begin)), steps, magic);
  }
  p[0] = permute(w[0], w[2], 0x6420); p[1] = permute(w[1], w[3], 0x6420);
  p[2] = permute(w[4], w[6], 0x6420); p[3] = permute(w[5], w[7], 0x6420);
}

// Logits of keys from `limit` on become minus infinity.
DEVICE void mask(u32 (&s)[LOGITS], int limit) {
  const int column = (threadIdx.x & 3) * 2;
#pragma unroll
  for (int i = 0; i < KEYS / 2; i++) {
    if (column + (i / 4) * 8 + (i & 1) < limit) continue;
    s[i / 2] = i & 1 ? (s[i / 2] & 0xffffu) | 0xfc000000u : (s[i / 2] & 0xffff0000u) | 0xfc00u;
  }
}
// The largest of a thread's own logits in each of its two rows, in units of log2.
DEVICE void largest(const u32 (&s)[LOGITS], float (&top)[2]) {
  u32 t[2] = {s[0], s[1]};
#pragma unroll
  for (int i = 2; i < LOGITS; i++) t[i & 1] = larger(t[i & 1], s[i]);
  u32 found = larger(permute(t[0], t[1], 0x5410), permute(t[0], t[1], 0x7632));
  top[0] = low_of(found), top[1] = high_of(found);
}
// Four threads share a row.
DEVICE float of_row(float top) {
  top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
  return fmaxf(top, __shfl_xor_sync(~0u, top, 2));
}
// What was summed before shrinks with a shift that moves.
template <bool FIRST> DEVICE void update_shift(const u32 (&s)[LOGITS], float (&o)[OUT], Row& r) {
  float top[2];
  largest(s, top);
  if (!FIRST && !__any_sync(~0u, top[0] > r.shift[0] + LARGEST || top[1] > r.shift[1] + LARGEST)) return;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float wanted = ceilf(of_row(top[half])) - TARGET;
    if (FIRST) {
      r.shift[half] = wanted;
      continue;
    }
    float higher = fmaxf(r.shift[half], wanted), factor = exp2_fast(r.shift[half] - higher);
    r.shift[half] = higher;
#pragma unroll
    for (int i = 0; i < OUT / 4; i++) o[4 * i + 2 * half] *= factor, o[4 * i + 2 * half + 1] *= factor;
  }
}

// ---- rows of a thread
DEVICE void load_queries(u32 (&q)[CHUNKS][4], const Args& a, int row, int head) {
  const unsigned char* base = a.qk + head * ROW_BYTES + (threadIdx.x & 3) * 4;
#pragma unroll
  for (int i = 0; i < 4 * CHUNKS; i++) {
    int at = row + (i & 1) * 8;
    q[i / 4][i % 4] = at < a.tokens ? *(const u32*)(base + at * a.row_bytes + (i / 4) * 32 + (i % 4 >> 1) * 16) : 0u;
  }
}
DEVICE void store_output(const float (&o)[OUT], const Args& a, int row, int head) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float scale = __frcp_rn(o[OUT - 4 + 2 * half]);
    int r = row + 8 * half;
    unsigned short* at = a.out + ((long long)r * a.heads + head) * 64 + (threadIdx.x & 3) * 2;
    if (r < a.tokens)
#pragma unroll
      for (int i = 0; i < 8; i++) *(u32*)(at + 8 * i) = pack(o[4 * i + 2 * half] * scale, o[4 * i + 2 * half + 1] * scale);
  }
}

// The ragged last tile comes first: it is masked once, outside of the loop.
DEVICE void produce(const TensorMap* map, const TensorMap* values, Ring ring, const Args& a, int count, int tiles, int stages) {
  for (int work = blockIdx.x; work < count; work += gridDim.x) {
    int head = work / tiles;
#pragma unroll 1
    for (int j = 0; j < stages; j++) {
      int row = (j == 0 ? stages - 1 : j - 1) * KEYS;
      barrier_wait(ring.empty(), ring.phase ^ 1);
      barrier_expect(ring.full(), TILE + 64 * KEYS);
      copy_tile(ring.keys(), map, ring.full(), 0, a.heads + head, row);
      copy_tile(ring.keys() + TILE, values, ring.full(), row, 0, head);
      ring.next();
    }
  }
}

DEVICE void begin_logits(u32 (&s)[LOGITS], const u32 (&q)[CHUNKS][4], u32 keys) {
  mma_fence();
#pragma unroll
  for (int i = 0; i < CHUNKS; i++) mma_logits(s, q[i], descriptor_keys(keys + 2 * i), i > 0);
  mma_commit();
}
// Weights of a tile's logits and their products: 32 keys at a time, so that softmax of the next runs under this product.
template <bool FIRST> DEVICE void weigh_tile(u32 (&s)[LOGITS], float (&o)[OUT], float (&t)[OUT], Row& r, u32 keys, int limit) {
  if (FIRST) mask(s, limit);
  update_shift<FIRST>(s, o, r);
#pragma unroll
  for (int i = 0; i < KEYS / 32; i++) {
    u32 p[4];
    weigh(s + EACH * i, p, r);
    mma_fence();
    mma_values(t, p, descriptor(keys + TILE / 16 + 2 * i), i > 0);
  }
  mma_commit();
}

// One stage: logits, weights, products; other warpgroups fill the tensor cores meanwhile.
template <bool FIRST> DEVICE void attend_stage(float (&o)[OUT], Row& r, const u32 (&q)[CHUNKS][4], Ring& ring, int limit) {
  u32 s[LOGITS];
  float t[OUT];
  barrier_wait(ring.full(), ring.phase);
  u32 keys = units(ring.keys());
  begin_logits(s, q, keys);
  mma_wait<0>();
  pin(s);
  weigh_tile<FIRST>(s, o, t, r, keys, limit);
  mma_wait<0>();
  pin(t);
  release(ring.empty());
  ring.next();
#pragma unroll
  for (int i = 0; i < OUT; i++) o[i] += t[i];
}
DEVICE void attend_row(float (&o)[OUT], Row& r, const u32 (&q)[CHUNKS][4], Ring& ring, int limit, int stages) {
  attend_stage<true>(o, r, q, ring, limit);
#pragma unroll 1
  for (int j = 1; j < stages; j++) attend_stage<false>(o, r, q, ring, 0);
}
DEVICE void consume(Ring ring, const Args& a, int group, int count, int tiles, int stages) {
  for (int work = blockIdx.x; work < count; work += gridDim.x) {
    int head = work / tiles, row = first_row(work % tiles * ROWS + group * 64);
    u32 q[CHUNKS][4];
    float o[OUT];
    Row r;
    load_queries(q, a, row, head);
#pragma unroll
    for (int i = 0; i < OUT; i++) o[i] = 0.f;
    attend_row(o, r, q, ring, a.tokens - (stages - 1) * KEYS, stages);
    store_output(o, a, row, head);
  }
}

// Eight rows of 1.0 behind the values of each stage; nothing writes there again.
DEVICE void write_ones(const Ring& ring) {
  for (int i = threadIdx.x; i < STAGES * KEYS * 2; i += blockDim.x) {
    u32 at = ring.tiles + i / (KEYS * 2) * STAGE + TILE + 64 * KEYS + i % (KEYS * 2) * 4;
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(0x38383838) : "memory");
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // the tensor cores read through another path
}

extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)
attend(const __grid_constant__ TensorMap map, const __grid_constant__ TensorMap values, const __grid_constant__ Args a) {
  extern __shared__ char memory[];
  Ring ring;
  begin(ring, memory);
  write_ones(ring);
  __syncthreads();
  static_assert(GROUPS == 3, "registers of a thread");
  int tiles = (a.tokens + ROWS - 1) / ROWS, stages = (a.tokens + KEYS - 1) / KEYS, group = threadIdx.x / 128;
  if (group == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(32));
    if (threadIdx.x == 0) produce(&map, &values, ring, a, tiles * a.heads, tiles, stages);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(160));
    consume(ring, a, group - 1, tiles * a.heads, tiles, stages);
  }
}
