// What the attention kernels for Hopper (sm_90a) share: barriers, copies, fences of the tensor cores, the ring of stages.
//
// It is compiled in front of each of them. Instruction formats after NVIDIA's PTX ISA 9.0 (wgmma, cp.async.bulk.tensor,
// mbarrier, setmaxnreg).

typedef unsigned u32;
typedef unsigned long long u64;
#define DEVICE __device__ __forceinline__

struct alignas(64) TensorMap { u64 words[16]; };
// The compiler's command line gives GROUPS (consumer warpgroups), KEYS (of a stage), STAGES (in flight), ROW_BYTES (of a
// key in shared memory) and BEHIND (bytes behind the keys of a stage: values and what else is there).
constexpr int ROWS = 64 * GROUPS;                         // query rows of a block
constexpr int TILE = KEYS * ROW_BYTES, STAGE = TILE + BEHIND;  // bytes: keys of a stage, all of it

// ---- barriers and copies
DEVICE void barrier_init(u32 bar, int count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count)); }
DEVICE void barrier_expect(u32 bar, int bytes) { asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory"); }
DEVICE void barrier_arrive(u32 bar) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory"); }
DEVICE void barrier_wait(u32 bar, u32 phase) {
  asm volatile("{ .reg .pred p;\nWAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra DONE;\nbra WAIT;\nDONE: }"
               ::"r"(bar), "r"(phase) : "memory");
}
DEVICE void copy_tile(u32 dst, const TensorMap* map, u32 bar, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
               ::"r"(dst), "l"(map), "r"(bar), "r"(x), "r"(y), "r"(z) : "memory");
}

// ---- tensor cores
DEVICE void mma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void mma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> DEVICE void mma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
// Makes the compiler believe that x changes here: no use of an accumulator moves above the wait before it.
template <int N> DEVICE void pin(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(x[i]) :: "memory");
}
// A shared-memory address as the low word of a matrix descriptor (16-byte units; leading offset 1, unused).
DEVICE u32 units(u32 address) { return (address >> 4) | (1u << 16); }
// 128-byte swizzle, 1024 bytes from one group of eight rows to the next.
DEVICE u64 descriptor(u32 low) { return ((u64)0x40000040u << 32) | low; }

// ---- numbers
DEVICE float exp2_fast(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
DEVICE u32 pack(float lo, float hi) { u32 r; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo)); return r; }

// ---- rows of a thread: two of the 64 of its warpgroup, eight apart
DEVICE int first_row(int row0) { return row0 + ((threadIdx.x & 127) >> 5) * 16 + ((threadIdx.x & 31) >> 2); }

// ---- the ring of stages: barriers full[i], empty[i] behind the tiles
struct Ring {
  u32 tiles; int stage = 0; u32 phase = 0;
  DEVICE u32 keys() const { return tiles + stage * STAGE; }
  DEVICE u32 full() const { return tiles + STAGES * STAGE + 16 * stage; }
  DEVICE u32 empty() const { return full() + 8; }
  DEVICE void next() { if (++stage == STAGES) { stage = 0; phase ^= 1; } }
};
DEVICE void release(u32 empty) { if ((threadIdx.x & 31) == 0) barrier_arrive(empty); }

// Barriers of the stages, in the dynamic shared memory of a block; __syncthreads() must follow.
DEVICE void begin(Ring& ring, char* memory) {
  ring.tiles = ((u32)__cvta_generic_to_shared(memory) + 1023) & ~1023u;  // the swizzle repeats every 1024 bytes
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      barrier_init(ring.tiles + STAGES * STAGE + 16 * i, 1);
      barrier_init(ring.tiles + STAGES * STAGE + 16 * i + 8, 4 * GROUPS);  // each consumer warp
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
}
