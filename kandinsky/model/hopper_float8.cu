// Attention forward for head_dim 64 on Hopper (sm_90a) with softmax's weights and values in float8 e4m3.
//
// The same split as hopper.cu's. What differs between forms is chosen by macros:
//
//   QUERIES  of what queries and keys are: E4M3 or FLOAT16
//   HALF     1: logits are sums in float16, two in a register, and softmax works on both at once; 0: in float32
//   WEIGHTS  how a logit becomes a weight: EXP2 by the exponential unit; POLYNOMIAL: SHARE of each 16 by the FMA units;
//            BYTES: as below; CORRECTED: the same, and the straight line between powers of two bent to the exponential
//   MAXIMUM  1: a row's logits are lowered by a running maximum, moved only when a weight would leave the format;
//            0: by its first tile's, and larger weights stop at the format's largest
//   AHEAD    1: the next tile's logits are on the tensor cores under this tile's softmax
//
// A float8 product's accumulator keeps 13 bits behind its largest addend's first and cuts off the rest: over 25,000 keys
// small addends vanish, a third of a flat softmax. So each tile is summed from zero and added in float32 registers, as
// DeepSeek-V3 does for GEMM (arXiv 2412.19437, section 3.3.2). Products of 32 keys want four neighbouring keys in a thread
// where an accumulator of logits holds two and two: values are stored with the keys of each 16 in another order, and
// transposed, as float8 products need both operands key-major. Behind the 64 rows of values lie eight rows of ones: a
// row's sum comes out of the same product, of the weights as they were rounded.
//
// BYTES: an e4m3 number's byte, read as an integer, is 8 (log2 + 7) with a straight line between powers of two. So the
// weight of a logit x in units of log2 is the byte round(8 (x - shift + 7)), at least 0: two multiply-adds and no
// exponential. It is exact at powers of two and at most 6 % too large between them (N. Schraudolph, Neural Computation
// 11, 1999, does it for float64); the sum of a row has the same weights.
// Compiled at first use by hopper_float8.py, which also says what the arguments are.

enum { E4M3, FLOAT16 };
enum { EXP2, POLYNOMIAL, BYTES, CORRECTED };
// qk: queries and keys; row_bytes: from one token to the next.
struct Args { const unsigned char* qk; unsigned short* out; long long row_bytes; int tokens, heads; };
static_assert(KEYS == 128 && ROW_BYTES == (QUERIES == FLOAT16 ? 128 : 64) && BEHIND == 72 * KEYS, "layout of a stage");
constexpr int OUT = 36;                 // of a thread's accumulators, 32 of values and four of ones
constexpr int CHUNKS = ROW_BYTES / 32;  // products that make logits of 64 channels
// A shift that moves gives its row's largest weight log2 TARGET, rounded up; it moves when one would be above LARGEST. The
// format ends at 448. Further down, BYTES would lose small weights: at TARGET 4 and norms' weights of 2, 3 % of a sum.
constexpr float TARGET = MAXIMUM ? 7.f : 3.f, LARGEST = 8.5f;
constexpr float MAGIC = 12582912.f;     // 1.5 2^23: a float with this added has its integer part in the last bits
#if HALF
typedef u32 Logit;                           // two neighbouring ones of a row
constexpr int LOGITS = KEYS / 4;
#else
typedef float Logit;
constexpr int LOGITS = KEYS / 2;
#endif
constexpr int EACH = LOGITS / (KEYS / 32);   // registers with logits of 32 keys

// ---- products; operand lists of the assembler
#define R4(x, i) "+r"(x[i]), "+r"(x[i + 1]), "+r"(x[i + 2]), "+r"(x[i + 3])
#define F4(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3])
#define R16(x, i) R4(x, i), R4(x, i + 4), R4(x, i + 8), R4(x, i + 12)
#define F16(x, i) F4(x, i), F4(x, i + 4), F4(x, i + 8), F4(x, i + 12)
#define D32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define D64 D32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// 64-byte swizzle, 512 bytes from one group of eight rows to the next.
DEVICE u64 descriptor_keys(u32 low) { return ROW_BYTES == 128 ? descriptor(low) : ((u64)0x80000020u << 32) | low; }
// Logits: d[64 queries, 128 keys] (+)= a[64, 32 bytes] b[128, 32 bytes]^T.
#if HALF
DEVICE void mma_logits(Logit (&d)[32], const u32 (&a)[4], u64 b, int keep) {
#if QUERIES == 1  // FLOAT16
#define LOGIT_PRODUCT "m64n128k16.f16.f16.f16", ", 1, 1, 0"
#else
#define LOGIT_PRODUCT "m64n128k32.f16.e4m3.e4m3", ", 1, 1"
#endif
#define ASSEMBLE(shape, rest) "{ .reg .pred p; setp.ne.b32 p, %37, 0;\nwgmma.mma_async.sync.aligned." shape " {" D32 "}, {%32, %33, %34, %35}, %36, p" rest "; }"
#define EXPANDED(x) ASSEMBLE x
  asm volatile(EXPANDED((LOGIT_PRODUCT)) : R16(d, 0), R16(d, 16) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
}
#else
DEVICE void mma_logits(Logit (&d)[64], const u32 (&a)[4], u64 b, int keep) {
#if QUERIES == 1  // FLOAT16
#define LOGIT_PRODUCT "m64n128k16.f32.f16.f16", ", 1, 1, 0"
#else
#define LOGIT_PRODUCT "m64n128k32.f32.e4m3.e4m3", ", 1, 1"
#endif
#define ASSEMBLE(shape, rest) "{ .reg .pred p; setp.ne.b32 p, %69, 0;\nwgmma.mma_async.sync.aligned." shape " {" D64 "}, {%64, %65, %66, %67}, %68, p" rest "; }"
#define EXPANDED(x) ASSEMBLE x
  asm volatile(EXPANDED((LOGIT_PRODUCT)) : F16(d, 0), F16(d, 16), F16(d, 32), F16(d, 48)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
}
#endif
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
DEVICE u32 add2(u32 a, u32 b) { u32 r; asm("add.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b)); return r; }
DEVICE u32 fma2(u32 a, u32 b, u32 c) { u32 r; asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; }
DEVICE u32 fma2_to_1(u32 a, u32 b, u32 c) { u32 r; asm("fma.rn.sat.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; }
DEVICE float fma_to_1(float a, float b, float c) { float r; asm("fma.rn.sat.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c)); return r; }
DEVICE u32 exp2_both(u32 x) { u32 r; asm("ex2.approx.f16x2 %0, %1;" : "=r"(r) : "r"(x)); return r; }
DEVICE u32 permute(u32 a, u32 b, u32 selector) { u32 r; asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(selector)); return r; }

// ---- softmax
// By what the logits of a thread's two rows are lowered: whole numbers in units of log2, so that rescaling is exact.
struct Row { float shift[2]; };
// A weight's byte is STEPS of a number that goes from 0 to 1 over the SPAN binades of the format, from shift - 7 on.
constexpr float SPAN = MAXIMUM ? 16.f : 15.75f, STEPS = 8 * SPAN;

#if HALF
DEVICE constexpr u32 twice(u32 half_bits) { return half_bits * 0x10001u; }
// Two and two float16 to four e4m3.
DEVICE u32 round4(u32 a, u32 b) {
  u32 r;
  asm("{ .reg .b16 lo, hi;\ncvt.rn.satfinite.e4m3x2.f16x2 lo, %1;\ncvt.rn.satfinite.e4m3x2.f16x2 hi, %2;\nmov.b32 %0, {lo, hi}; }" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
DEVICE void weigh(const u32* s, u32 (&p)[4], const Row& r) {
  u32 w[8];
  if (WEIGHTS == EXP2) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float down = -r.shift[i & 1];
      w[i] = exp2_both(add2(s[i], both(down, down)));
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int at = i / 2 * 4 + i % 2;
      p[i] = round4(w[at], w[at + 2]);
    }
    return;
  }
  u32 scale = both(1 / SPAN, 1 / SPAN), steps = both(STEPS, STEPS), magic = twice(0x6400);  // 1024
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float begin = (7.f - r.shift[i & 1]) / SPAN;
    u32 z = fma2_to_1(s[i], scale, both(begin, begin));
    if (WEIGHTS == CORRECTED) {  // lowered by 0.344 d (1 - d) log2 units, d the distance from a power of two
      u32 span = both(SPAN, SPAN);
      u32 whole = add2(fma2(z, span, twice(0x6600)), twice(0xe600));  // 1536
      u32 d = fma2(z, span, whole ^ 0x80008000u) & 0x7fff7fffu;
      u32 bent = fma2(d, d, d ^ 0x80008000u);
      z = fma2(bent, both(0.344f / SPAN, 0.344f / SPAN), z);
    }
    w[i] = fma2(z, steps, magic);
  }
  p[0] = permute(w[0], w[2], 0x6420); p[1] = permute(w[1], w[3], 0x6420);
  p[2] = permute(w[4], w[6], 0x6420); p[3] = permute(w[5], w[7], 0x6420);
}
#else
DEVICE u32 pack4(float a, float b, float c, float d) {
  u32 r;
  asm("{ .reg .b16 lo, hi;\ncvt.rn.satfinite.e4m3x2.f32 lo, %2, %1;\ncvt.rn.satfinite.e4m3x2.f32 hi, %4, %3;\nmov.b32 %0, {lo, hi}; }"
      : "=r"(r) : "f"(a), "f"(b), "f"(c), "f"(d));
  return r;
}
// 2^x on the FMA units: rounded to a whole number, and a polynomial (largest error 1.0e-4) for what is left.
DEVICE float exp2_polynomial(float x) {
  x = fmaxf(x, -120.f);
  float whole = x + MAGIC, rest = x - (whole - MAGIC);
  float y = fmaf(fmaf(fmaf(0.0550085f, rest, 0.2422112f), rest, 0.6932830f), rest, 1.f);
  return __int_as_float(__float_as_int(y) + (__float_as_int(whole) << 23));
}
DEVICE u32 bytes4(float a, float b, float c, float d) {
  u32 low = __float_as_uint(a) + (__float_as_uint(b) << 8), high = __float_as_uint(c) + (__float_as_uint(d) << 8);
  return permute(low, high, 0x5410);
}
DEVICE void weigh(const Logit* s, u32 (&p)[4], const Row& r) {
  float e[16];
#pragma unroll
  for (int i = 0; i < 16; i++) {
    int half = i >> 1 & 1;
    if (WEIGHTS == BYTES) {
      e[i] = fmaf(fma_to_1(s[i], 1 / SPAN, (7.f - r.shift[half]) / SPAN), STEPS, MAGIC);
      continue;
    }
    float x = s[i] - r.shift[half];
    e[i] = WEIGHTS == POLYNOMIAL && i % (16 / SHARE) == 1 ? exp2_polynomial(x) : exp2_fast(x);
  }
  if (WEIGHTS == BYTES) {
    p[0] = bytes4(e[0], e[1], e[4], e[5]); p[1] = bytes4(e[2], e[3], e[6], e[7]);
    p[2] = bytes4(e[8], e[9], e[12], e[13]); p[3] = bytes4(e[10], e[11], e[14], e[15]);
    return;
  }
  p[0] = pack4(e[0], e[1], e[4], e[5]); p[1] = pack4(e[2], e[3], e[6], e[7]);
  p[2] = pack4(e[8], e[9], e[12], e[13]); p[3] = pack4(e[10], e[11], e[14], e[15]);
}
#endif

// Logits of keys from `limit` on become minus infinity.
DEVICE void mask(Logit (&s)[LOGITS], int limit) {
  const int column = (threadIdx.x & 3) * 2;
#pragma unroll
  for (int i = 0; i < KEYS / 2; i++) {
    if (column + (i / 4) * 8 + (i & 1) < limit) continue;
#if HALF
    s[i / 2] = i & 1 ? (s[i / 2] & 0xffffu) | 0xfc000000u : (s[i / 2] & 0xffff0000u) | 0xfc00u;
#else
    s[i] = -__int_as_float(0x7f800000);
#endif
  }
}
// The largest of a thread's own logits in each of its two rows, in units of log2.
DEVICE void largest(const Logit (&s)[LOGITS], float (&top)[2]) {
#if HALF
  u32 t[2] = {s[0], s[1]};
#pragma unroll
  for (int i = 2; i < LOGITS; i++) t[i & 1] = larger(t[i & 1], s[i]);
  u32 found = larger(permute(t[0], t[1], 0x5410), permute(t[0], t[1], 0x7632));
  top[0] = low_of(found), top[1] = high_of(found);
#else
  top[0] = s[0], top[1] = s[2];
#pragma unroll
  for (int i = 0; i < LOGITS; i++) top[i >> 1 & 1] = fmaxf(top[i >> 1 & 1], s[i]);
#endif
}
// Four threads share a row.
DEVICE float of_row(float top) {
  top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
  return fmaxf(top, __shfl_xor_sync(~0u, top, 2));
}
// What was summed before shrinks with a shift that moves.
template <bool FIRST> DEVICE void update_shift(const Logit (&s)[LOGITS], float (&o)[OUT], Row& r) {
  if (!FIRST && !MAXIMUM) return;
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

DEVICE void begin_logits(Logit (&s)[LOGITS], const u32 (&q)[CHUNKS][4], u32 keys) {
  mma_fence();
#pragma unroll
  for (int i = 0; i < CHUNKS; i++) mma_logits(s, q[i], descriptor_keys(keys + 2 * i), i > 0);
  mma_commit();
}
// Weights of a tile's logits and their products: 32 keys at a time, so that softmax of the next runs under this product.
template <bool FIRST> DEVICE void weigh_tile(Logit (&s)[LOGITS], float (&o)[OUT], float (&t)[OUT], Row& r, u32 keys, int limit) {
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

#if AHEAD
// One stage, with the next one's logits ahead of this one's softmax; `s` of one stage is `next` of the other.
template <bool FIRST> DEVICE void attend_stage(float (&o)[OUT], Row& r, const u32 (&q)[CHUNKS][4], Logit (&s)[LOGITS], Logit (&next)[LOGITS], Ring& ring, int limit, bool last) {
  float t[OUT];
  u32 keys = units(ring.keys()), empty = ring.empty();
  ring.next();
  if (!last) {
    barrier_wait(ring.full(), ring.phase);
    begin_logits(next, q, units(ring.keys()));
  }
  weigh_tile<FIRST>(s, o, t, r, keys, limit);
  mma_wait<0>();
  pin(t);
  pin(next);
  release(empty);
#pragma unroll
  for (int i = 0; i < OUT; i++) o[i] += t[i];
}
DEVICE void attend_row(float (&o)[OUT], Row& r, const u32 (&q)[CHUNKS][4], Ring& ring, int limit, int stages) {
  Logit a[LOGITS], b[LOGITS];
  barrier_wait(ring.full(), ring.phase);
  begin_logits(a, q, units(ring.keys()));
  mma_wait<0>();
  pin(a);
  attend_stage<true>(o, r, q, a, b, ring, limit, stages == 1);
#pragma unroll 1
  for (int j = 1; j < stages; j += 2) {
    attend_stage<false>(o, r, q, b, a, ring, 0, j + 1 == stages);
    if (j + 1 == stages) return;
    attend_stage<false>(o, r, q, a, b, ring, 0, j + 2 == stages);
  }
}
#else
// One stage: logits, weights, products; other warpgroups fill the tensor cores meanwhile.
template <bool FIRST> DEVICE void attend_stage(float (&o)[OUT], Row& r, const u32 (&q)[CHUNKS][4], Ring& ring, int limit) {
  Logit s[LOGITS];
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
#endif
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
  int tiles = (a.tokens + ROWS - 1) / ROWS, stages = (a.tokens + KEYS - 1) / KEYS, group = threadIdx.x / 128;
  if (group == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(GROUPS == 4 ? 24 : 32));
    if (threadIdx.x == 0) produce(&map, &values, ring, a, tiles * a.heads, tiles, stages);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(GROUPS == 2 ? 240 : GROUPS == 3 ? 160 : 120));
    consume(ring, a, group - 1, tiles * a.heads, tiles, stages);
  }
}
