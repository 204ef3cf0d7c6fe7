// Attention forward for head_dim 64 on Hopper (sm_90a) with operands of 8 bits: queries, keys, softmax's weights and values
// are float8 e4m3, sums are float32.
//
// The same split as hopper.cu's. Products of 32 keys want four neighbouring keys in a thread where an accumulator of logits
// holds two and two: values are stored with the keys of each 16 in another order, and transposed, as float8 products need
// both operands key-major. Behind the 64 rows of values lie eight rows of ones: a row's sum comes out of the same product,
// of the weights as they were rounded. A row's logits are lowered by a running maximum, moved only when a weight would be
// 16 times as large as intended, so that the largest weights lie in the upper binades of the format.
// Compiled at first use by hopper_float8.py, which also says what the arguments are.

struct Args { const unsigned char* qk; unsigned short* out; long long row_stride; int tokens, heads; };
constexpr int OUT = 36;  // of a thread's accumulators, 32 of values and four of ones
constexpr float TARGET = 4.f, SLACK = 4.f;  // a row's largest weight lies under 2^(TARGET + SLACK); the format ends at 448
// 64-byte swizzle, 512 bytes from one group of eight rows to the next.
DEVICE u64 descriptor64(u32 low) { return ((u64)0x80000020u << 32) | low; }
// Logits: d[64 queries, n keys] (+)= a[64, 32] b[n, 32]^T, keys as rows of 64 bytes.
DEVICE void mma_logits(float (&d)[64], const u32 (&a)[4], u64 b, int keep) {
  asm volatile(
    "{ .reg .pred p; setp.ne.b32 p, %69, 0;\n"
    "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {"
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
    "}, {%64, %65, %66, %67}, %68, p, 1, 1; }"
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
// Products: d[64 queries, 72] += a[64, 32 keys] b[32, 72]; both operands key-major.
DEVICE void mma_values(float (&d)[OUT], const u32 (&a)[4], u64 b, int keep) {
  asm volatile(
    "{ .reg .pred p; setp.ne.b32 p, %41, 0;\n"
    "wgmma.mma_async.sync.aligned.m64n72k32.f32.e4m3.e4m3 {"
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35"
    "}, {%36, %37, %38, %39}, %40, p, 1, 1; }"
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
      "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
      "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
      "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35])
    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
}


// ---- softmax
DEVICE u32 pack4(float a, float b, float c, float d) {
  u32 r;
  asm("{ .reg .b16 lo, hi;\ncvt.rn.satfinite.e4m3x2.f32 lo, %2, %1;\ncvt.rn.satfinite.e4m3x2.f32 hi, %4, %3;\nmov.b32 %0, {lo, hi}; }"
      : "=r"(r) : "f"(a), "f"(b), "f"(c), "f"(d));
  return r;
}
// A thread's logits of 32 keys in two rows become its share of the A operand.
DEVICE void weigh(const float* s, u32 (&p)[4], const float (&shift)[2]) {
  float e[16];
#pragma unroll
  for (int i = 0; i < 16; i++) e[i] = exp2_fast(s[i] - shift[i >> 1 & 1]);
  p[0] = pack4(e[0], e[1], e[4], e[5]); p[1] = pack4(e[2], e[3], e[6], e[7]);
  p[2] = pack4(e[8], e[9], e[12], e[13]); p[3] = pack4(e[10], e[11], e[14], e[15]);
}
DEVICE void mask(float (&s)[KEYS / 2], int limit) {
  const int col = (threadIdx.x & 3) * 2;
#pragma unroll
  for (int i = 0; i < KEYS / 2; i++)
    if (col + (i / 4) * 8 + (i & 1) >= limit) s[i] = -__int_as_float(0x7f800000);
}
// What would give each of a thread's two rows a largest weight of 2^TARGET; four threads share a row.
DEVICE void wanted_shift(const float (&s)[KEYS / 2], float (&wanted)[2]) {
  wanted[0] = s[0], wanted[1] = s[2];
#pragma unroll
  for (int i = 0; i < KEYS / 2; i++) wanted[i >> 1 & 1] = fmaxf(wanted[i >> 1 & 1], s[i]);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    wanted[half] = fmaxf(wanted[half], __shfl_xor_sync(~0u, wanted[half], 1));
    wanted[half] = fmaxf(wanted[half], __shfl_xor_sync(~0u, wanted[half], 2)) - TARGET;
  }
}
// What was summed before shrinks with a shift that moves.
template <bool FIRST> DEVICE void update_shift(const float (&s)[KEYS / 2], float (&o)[OUT], float (&shift)[2]) {
  float wanted[2];
  wanted_shift(s, wanted);
  if (FIRST) {
    shift[0] = wanted[0], shift[1] = wanted[1];
    return;
  }
  if (!__any_sync(~0u, wanted[0] > shift[0] + SLACK || wanted[1] > shift[1] + SLACK)) return;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float higher = fmaxf(shift[half], wanted[half]), factor = exp2_fast(shift[half] - higher);
    shift[half] = higher;
#pragma unroll
    for (int i = 0; i < OUT / 4; i++) o[4 * i + 2 * half] *= factor, o[4 * i + 2 * half + 1] *= factor;
  }
}

// ---- rows of a thread
DEVICE void load_queries(u32 (&q)[2][4], const Args& a, int row, int head) {
  const unsigned char* base = a.qk + head * 64 + (threadIdx.x & 3) * 4;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    int r = row + (i & 1) * 8;
    q[i / 4][i % 4] = r < a.tokens ? *(const u32*)(base + r * a.row_stride + (i / 4) * 32 + (i % 4 >> 1) * 16) : 0u;
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
      barrier_expect(ring.full(), 2 * TILE);
      copy_tile(ring.keys(), map, ring.full(), 0, a.heads + head, row);
      copy_tile(ring.keys() + TILE, values, ring.full(), row, 0, head);
      ring.next();
    }
  }
}

// One stage: logits, exponentials, products; other warpgroups fill the tensor cores meanwhile.
// The first stage is the masked one.
template <bool MASK> DEVICE void attend_stage(float (&o)[OUT], float (&shift)[2], const u32 (&q)[2][4], u32 keys, int limit) {
  float s[KEYS / 2];
  mma_fence();
#pragma unroll
  for (int i = 0; i < 2; i++) mma_logits(s, q[i], descriptor64(keys + 2 * i), i > 0);
  mma_commit();
  mma_wait<0>();
  pin(s);
  if (MASK) mask(s, limit);
  update_shift<MASK>(s, o, shift);
#pragma unroll
  for (int i = 0; i < KEYS / 32; i++) {  // 32 keys at a time: the next exponentials run under this product
    u32 p[4];
    weigh(s + 16 * i, p, shift);
    mma_fence();
    mma_values(o, p, descriptor(keys + TILE / 16 + 2 * i), 1);
  }
  mma_commit();
  mma_wait<0>();
  pin(o);
}
DEVICE void consume(Ring ring, const Args& a, int group, int count, int tiles, int stages) {
  for (int work = blockIdx.x; work < count; work += gridDim.x) {
    int head = work / tiles, row = first_row(work % tiles * ROWS + group * 64);
    u32 q[2][4];
    float o[OUT], shift[2];
    load_queries(q, a, row, head);
#pragma unroll
    for (int i = 0; i < OUT; i++) o[i] = 0.f;
    barrier_wait(ring.full(), ring.phase);
    attend_stage<true>(o, shift, q, units(ring.keys()), a.tokens - (stages - 1) * KEYS);
    release(ring.empty());
    ring.next();
#pragma unroll 1
    for (int j = 1; j < stages; j++) {
      barrier_wait(ring.full(), ring.phase);
      attend_stage<false>(o, shift, q, units(ring.keys()), KEYS);
      release(ring.empty());
      ring.next();
    }
    store_output(o, a, row, head);
  }
}

// Eight rows of 1.0 behind the values of each stage; nothing writes there again.
DEVICE void write_ones(const Ring& ring) {
  for (int i = threadIdx.x; i < STAGES * EXTRA / 4; i += blockDim.x) {
    u32 at = ring.tiles + i / (EXTRA / 4) * STAGE + 2 * TILE + i % (EXTRA / 4) * 4;
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
    asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
    if (threadIdx.x == 0) produce(&map, &values, ring, a, tiles * a.heads, tiles, stages);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
    consume(ring, a, group - 1, tiles * a.heads, tiles, stages);
  }
}
