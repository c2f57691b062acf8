// Instructions of tensor cores and of copies that do not wait, for sm_80 and above. The emulator of `tests/cuda` has its own.
// Places in shared memory are the numbers that its instructions take.

#ifndef EMULATED

inline unsigned place(const void* shared) { return unsigned(__cvta_generic_to_shared(shared)); }

// d = a b + c for a (16, 32) and b (32, 8) of bytes, spread over a warp: lane l has, of a, rows l / 4 and l / 4 + 8, columns
// 4 (l % 4)..+4 and 16 further; of b, column l / 4 and those rows; of c and d, those rows of a and columns 2 (l % 4)..+2.
inline void mma(int (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, const int (&c)[4]) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}

// Four matrices of 8 rows of 16 bytes in shared memory; lane 8 i + j has the place of row j of matrix i, and gets bytes
// 4 (l % 4)..+4 of row l / 4 of each.
inline void load_matrices(unsigned (&r)[4], unsigned row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row));
}

// Starts to copy 16 bytes to shared memory: `bytes` of them, then zeros.
inline void copy16(unsigned to, const void* from, unsigned bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

// Ends a group of copies.
inline void end_copies() { asm volatile("cp.async.commit_group;"); }

// Waits for this thread's groups of copies except the last `N`.
template <int N> inline void wait_for_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(N)); }

#endif
