// The part of CUDA that translated shaders use, for the host's C++ compiler, and two ways to launch them: a main that reads
// calls from a file, and the functions of the driver that the backend uses, for a library that replaces libcuda.
//
// The threads of a block are fibers that run one after the other and switch at barriers, so results are deterministic. The
// threads of a warp meet at its instructions, too.
// Workgroup memory is filled with garbage before each block, because a GPU does not clear it.
//
// The prelude, each kernel in its own namespace, and the table of kernels follow.

#include <array>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <sys/resource.h>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

// Below 610, so that the prelude computes the product of four bytes. NVRTC tests cover the single instruction.
#define __CUDA_ARCH__ 600
#define __global__
#define __device__
#define __launch_bounds__(...)
#define EMULATED
// A separate section, whose bounds the linker provides.
#define __shared__ static __attribute__((section("shared_memory")))
extern char __start_shared_memory[] __attribute__((visibility("hidden")));
extern char __stop_shared_memory[] __attribute__((visibility("hidden")));

struct dim3 {
    unsigned x, y, z;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static dim3 gridDim, blockIdx, threadIdx;

static float __uint_as_float(unsigned a) {
    float r;
    memcpy(&r, &a, 4);
    return r;
}

static unsigned __float_as_uint(float a) {
    unsigned r;
    memcpy(&r, &a, 4);
    return r;
}

static float __int_as_float(int a) { return __uint_as_float(unsigned(a)); }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }

// Fibers switch at barriers alone.
static unsigned atomicAdd(unsigned* at, unsigned n) {
    const unsigned old = *at;
    *at += n;
    return old;
}

// Each of the four bytes is one of the eight.
static unsigned __byte_perm(unsigned low, unsigned high, unsigned which) {
    const uint64_t all = uint64_t(high) << 32 | low;
    unsigned r = 0;
    for (unsigned i = 0; i < 32; i += 8) r |= unsigned(all >> 8 * (which >> i / 2 & 7) & 255) << i;
    return r;
}

static int __clz(int a) { return a == 0 ? 32 : __builtin_clz(unsigned(a)); }
static float rsqrtf(float a) { return 1.0f / sqrtf(a); }

[[noreturn]] static void fail(const char* kernel, const char* what) {
    fprintf(stderr, "%s: %s\n", kernel, what);
    exit(1);
}

// A kernel takes the addresses of its parameters, as in CUDA's driver.
struct Entry {
    const char* name;
    void (*call)(void** parameters);
    size_t parameters;
    dim3 block;
    bool barriers;
};
extern const Entry table[];
extern const size_t entries;

template <auto kernel, typename... A, size_t... I>
static void call_with(void (*)(A...), void** parameters, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(parameters[I])...);
}
template <typename... A> constexpr size_t count(void (*)(A...)) { return sizeof...(A); }
template <auto kernel> static void call(void** parameters) {
    call_with<kernel>(kernel, parameters, std::make_index_sequence<count(kernel)>());
}

// A copy to shared memory that is done when it is waited for.
struct Copy {
    char* to;
    const char* from;
    unsigned bytes;
};

// Where a fiber is: it runs, it waits for its warp or for its block, or it has ended.
enum class At { RUN, WARP, BLOCK, END };

struct Fiber {
    static constexpr size_t STACK = 256 << 10;
    std::unique_ptr<char[]> stack{new char[STACK]};
    jmp_buf place;
    bool begun = false;
    At at = At::END;
    // Instructions of a warp so far.
    unsigned meetings = 0;
    // The groups of copies that were not waited for; the last one is open.
    std::deque<std::vector<Copy>> copies{1};
};
static jmp_buf scheduler;
static Fiber* current;
static const Entry* running;
static void** arguments;
// What a barrier that votes has heard so far, and what the last one did.
static bool heard, voted;

// Unlike `swapcontext`, a jump makes no system call.
static void leave(At at) {
    current->at = at;
    if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}

static void wait_at(At at) {
    if (!running->barriers) fail(running->name, "a barrier that was not expected");
    leave(at);
}

static void __syncthreads() { wait_at(At::BLOCK); }

static int __syncthreads_or(int own) {
    heard |= own != 0;
    wait_at(At::BLOCK);
    return voted;
}

// A fiber runs one block's thread after another.
static void fiber_main() {
    for (;;) {
        running->call(arguments);
        leave(At::END);
    }
}

static __attribute__((noinline)) void resume(Fiber& fiber) {
    current = &fiber;
    if (_setjmp(scheduler) != 0) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.get();
    context.uc_stack.ss_size = Fiber::STACK;
    context.uc_link = nullptr;
    makecontext(&context, fiber_main, 0);
    setcontext(&context);
}

// What the lanes of a warp hand to an instruction. Two are in use in turn: a lane may be at the next one when another still
// reads.
typedef std::array<unsigned, 16> Operands;
static Operands warps[32][2][32];

// Meets the other lanes of the warp; returns the operands of all.
static Operands* meet(const Operands& own) {
    Operands* all = warps[threadIdx.x / 32][current->meetings++ % 2];
    all[threadIdx.x % 32] = own;
    wait_at(At::WARP);
    return all;
}

static unsigned place(const void* shared) { return unsigned(static_cast<const char*>(shared) - __start_shared_memory); }

// As much as a block may have on sm_89.
constexpr size_t LAUNCHED = 99 << 10;
alignas(16) __shared__ char launched[LAUNCHED];
static unsigned launched_memory() { return place(launched); }

// Bytes of it that the launch has.
static size_t launched_bytes;

// What is at a place in shared memory.
static char* shared_at(unsigned at, unsigned bytes) {
    const size_t beyond = size_t(launched - __start_shared_memory) + launched_bytes;
    if (at % bytes != 0) fail(running->name, "a place in shared memory that is not aligned");
    if (__start_shared_memory + at >= launched && __start_shared_memory + at < launched + LAUNCHED && at + bytes > beyond)
        fail(running->name, "more shared memory than the launch has");
    return __start_shared_memory + at;
}

static unsigned kept(unsigned n) { return n; }

static unsigned load4(unsigned from) {
    unsigned r;
    memcpy(&r, shared_at(from, 4), 4);
    return r;
}
static void store4(unsigned to, unsigned word) { memcpy(shared_at(to, 4), &word, 4); }
static void store8(unsigned to, unsigned low, unsigned high) {
    const unsigned both[2] = {low, high};
    memcpy(shared_at(to, 8), both, 8);
}

static float half_value(unsigned half) {
    static float* const values = [] {
        float* values = new float[65536];
        for (unsigned half = 0; half < 65536; half++) {
            const unsigned exponent = half >> 10 & 31, mantissa = half & 1023;
            const float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                : exponent == 0               ? ldexpf(float(mantissa), -24)
                                              : ldexpf(float(mantissa | 1024), int(exponent) - 25);
            values[half] = half & 0x8000 ? -size : size;
        }
        return values;
    }();
    return values[half];
}

// The nearest f16, of two the even one.
static unsigned to_half(float value) {
    const unsigned sign = __float_as_uint(value) >> 16 & 0x8000, size = __float_as_uint(value) & 0x7fffffff;
    if (size > 0x7f800000) return 0x7fff;
    if (size >= __float_as_uint(65520.0f)) return sign | 0x7c00;
    // Below 2^-14, f16 are multiples of 2^-24, as floats from 0.5 to 1 are.
    if (size < __float_as_uint(0x1p-14f))
        return sign | (__float_as_uint(__uint_as_float(size) + 0.5f) - __float_as_uint(0.5f));
    return sign | ((size + 0xfff + (size >> 13 & 1)) >> 13) - (112 << 10);
}
static unsigned to_halves(float low, float high) { return to_half(low) | to_half(high) << 16; }
static float low_half(unsigned halves) { return half_value(halves & 0xffff); }
static float high_half(unsigned halves) { return half_value(halves >> 16); }
static unsigned add_halves(unsigned a, unsigned b) {
    return to_halves(low_half(a) + low_half(b), high_half(a) + high_half(b));
}
static unsigned multiply_halves(unsigned a, unsigned b) {
    return to_halves(low_half(a) * low_half(b), high_half(a) * high_half(b));
}

// The float next to a sum, towards zero, as in tensor cores.
static float truncated(double sum) {
    const float nearest = float(sum);
    return fabs(double(nearest)) > fabs(sum) ? nextafterf(nearest, 0.0f) : nearest;
}

// The lane that runs first computes what all get.
static void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    Operands own;
    memcpy(&own[0], d, sizeof d);
    const unsigned words[6] = {a[0], a[1], a[2], a[3], b0, b1};
    for (unsigned i = 0; i < 12; i++) own[4 + i] = __float_as_uint(i % 2 ? high_half(words[i / 2]) : low_half(words[i / 2]));
    Operands* all = meet(own);
    const unsigned lane = threadIdx.x % 32;
    if (lane == 0) {
        // (16, 16) and (8, 16)
        double left[16][16], right[8][16];
        for (unsigned l = 0; l < 32; l++)
            for (unsigned i = 0; i < 12; i++) {
                const unsigned k = l % 4 * 2 + i % 2;
                const double value = __uint_as_float(all[l][4 + i]);
                if (i < 8) left[l / 4 + i / 2 % 2 * 8][k + i / 4 * 8] = value;
                else right[l / 4][k + (i - 8) / 2 * 8] = value;
            }
        for (unsigned l = 0; l < 32; l++)
            for (unsigned i = 0; i < 4; i++) {
                const double *x = left[l / 4 + i / 2 * 8], *y = right[l % 4 * 2 + i % 2];
                double sum = __uint_as_float(all[l][i]);
                for (unsigned k = 0; k < 16; k++) sum += x[k] * y[k];
                all[l][i] = __float_as_uint(truncated(sum));
            }
    }
    memcpy(d, &all[lane][0], sizeof d);
}

static void __syncwarp() { meet({}); }

static float __shfl_sync(unsigned, float value, unsigned lane) {
    return __uint_as_float(meet({__float_as_uint(value)})[lane][0]);
}
static float __shfl_xor_sync(unsigned, float value, unsigned mask) {
    return __uint_as_float(meet({__float_as_uint(value)})[threadIdx.x % 32 ^ mask][0]);
}

static unsigned largest_of_warp(unsigned own) {
    const Operands* all = meet({own});
    for (unsigned lane = 0; lane < 32; lane++) own = all[lane][0] > own ? all[lane][0] : own;
    return own;
}

static void mma(int (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, const int (&c)[4]) {
    const Operands* all = meet({a[0], a[1], a[2], a[3], b0, b1});
    const unsigned lane = threadIdx.x % 32;
    int result[4];
    for (unsigned i = 0; i < 4; i++) {
        const unsigned column = lane % 4 * 2 + i % 2;
        result[i] = c[i];
        for (unsigned k = 0; k < 32; k++) {
            const unsigned x = all[lane / 4 * 4 + k % 16 / 4][i / 2 + k / 16 * 2];
            const unsigned y = all[column * 4 + k % 16 / 4][4 + k / 16];
            result[i] += int8_t(x >> (k % 4 * 8)) * int8_t(y >> (k % 4 * 8));
        }
    }
    memcpy(d, result, sizeof result);
}

static void load_matrices(unsigned (&r)[4], unsigned row) {
    const Operands* all = meet({row});
    const unsigned lane = threadIdx.x % 32;
    for (unsigned i = 0; i < 4; i++) {
        memcpy(&r[i], shared_at(all[i * 8 + lane / 4][0], 16) + lane % 4 * 4, 4);
    }
}

static void load_transposed(unsigned (&r)[4], unsigned row) {
    const Operands* all = meet({row});
    const unsigned lane = threadIdx.x % 32;
    for (unsigned i = 0; i < 8; i++) {
        const unsigned from = all[i / 2 * 8 + lane % 4 * 2 + i % 2][0];
        memcpy(reinterpret_cast<char*>(&r[i / 2]) + i % 2 * 2, shared_at(from, 16) + lane / 4 * 2, 2);
    }
}

static void copy16(unsigned to, const void* from, unsigned bytes) {
    if (uintptr_t(from) % 16 != 0) fail(running->name, "a copy that is not aligned");
    current->copies.back().push_back({shared_at(to, 16), static_cast<const char*>(from), bytes});
}

static void end_copies() { current->copies.emplace_back(); }

template <int N> static void wait_for_copies() {
    while (current->copies.size() > N + 1) {
        for (const Copy& copy : current->copies.front()) {
            memset(copy.to, 0, 16);
            memcpy(copy.to, copy.from, copy.bytes);
        }
        current->copies.pop_front();
    }
}

static dim3 thread(unsigned i) {
    const dim3& block = running->block;
    return {i % block.x, i / block.x % block.y, i / block.x / block.y};
}

// Runs the threads of a warp until they wait for the block or have ended; returns how many wait.
static unsigned run_warp(Fiber* fibers, unsigned first, unsigned rest) {
    const unsigned lanes = rest < 32 ? rest : 32;
    for (;;) {
        unsigned met = 0, waiting = 0;
        for (unsigned i = 0; i < lanes; i++) {
            threadIdx = thread(first + i);
            if (fibers[i].at != At::END) resume(fibers[i]);
            met += fibers[i].at == At::WARP;
            waiting += fibers[i].at == At::BLOCK;
        }
        if (met == 0) return waiting;
        if (met != lanes) fail(running->name, "some threads of a warp wait for others that do not come");
    }
}

static void run_block() {
    static std::vector<Fiber> fibers;
    const unsigned threads = running->block.x * running->block.y * running->block.z;
    memset(__start_shared_memory, 0xcd, size_t(__stop_shared_memory - __start_shared_memory));
    if (!running->barriers) {
        for (unsigned i = 0; i < threads; i++) {
            threadIdx = thread(i);
            running->call(arguments);
        }
        return;
    }
    if (fibers.size() < threads) fibers.resize(threads);
    for (unsigned i = 0; i < threads; i++) {
        Fiber& fiber = fibers[i];
        fiber.at = At::RUN;
        fiber.meetings = 0;
        fiber.copies.assign(1, {});
    }
    for (unsigned waiting = threads; waiting > 0;) {
        waiting = 0;
        for (unsigned first = 0; first < threads; first += 32) waiting += run_warp(&fibers[first], first, threads - first);
        voted = heard;
        heard = false;
        if (waiting != 0 && waiting != threads) fail(running->name, "some threads wait at a barrier and others have ended");
    }
}

static void launch(const Entry* kernel, dim3 grid, unsigned shared, void** parameters) {
    running = kernel;
    launched_bytes = shared;
    arguments = parameters;
    gridDim = grid;
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) run_block();
}

static uint32_t word(FILE* file) {
    uint32_t r;
    if (fread(&r, 4, 1, file) != 1) fail("input", "it ends early");
    return r;
}

// main INPUT OUTPUT. The input is a sequence of calls in words: number of launches, for each the number of the kernel, 3 of its
// grid and the bytes of shared memory that it adds, then 16 of the uniform, number of buffers. For each buffer follows the number of an earlier buffer to use, or 0xffffffff, its length and its words.
// The output is the words of all buffers after each call.
int main(int argc, char** argv) {
    FILE* input = argc == 3 ? fopen(argv[1], "rb") : nullptr;
    FILE* output = input ? fopen(argv[2], "wb") : nullptr;
    if (!output) fail("main", "it takes an input and an output");
    const rlimit seconds{120, 120};  // a loop that was translated wrongly may be endless
    setrlimit(RLIMIT_CPU, &seconds);
    uint32_t passes;
    while (fread(&passes, 4, 1, input) == 1) {
        std::vector<std::array<uint32_t, 5>> launches(passes);
        for (auto& launch : launches)
            for (uint32_t& w : launch) w = word(input);
        uint32_t args[16];
        for (uint32_t& w : args) w = word(input);
        const uint32_t count = word(input);
        std::vector<std::vector<uint32_t>> buffers(count);
        std::vector<uint32_t> places(count);
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t same = word(input);
            places[i] = same == 0xffffffff ? i : places[same];
            buffers[i].resize(word(input));
            if (fread(buffers[i].data(), 4, buffers[i].size(), input) != buffers[i].size()) fail("input", "it ends early");
        }
        std::vector<uint32_t*> addresses(count);
        std::vector<unsigned long long> bytes(count);
        std::vector<void*> parameters{args};
        for (uint32_t i = 0; i < count; i++) {
            addresses[i] = buffers[places[i]].data();
            bytes[i] = 4 * buffers[places[i]].size();
            parameters.push_back(&addresses[i]);
            parameters.push_back(&bytes[i]);
        }
        for (const auto& [kernel, x, y, z, shared] : launches) {
            if (parameters.size() != table[kernel].parameters) fail(table[kernel].name, "it has other parameters");
            launch(&table[kernel], {x, y, z}, shared, parameters.data());
        }
        for (uint32_t place : places) {
            const std::vector<uint32_t>& buffer = buffers[place];
            if (fwrite(buffer.data(), 4, buffer.size(), output) != buffer.size()) fail("output", "it cannot be written");
        }
    }
    return fclose(output) == 0 ? 0 : 1;
}

// The driver. Device memory is host memory, and every call is synchronous.

typedef int Result;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901 };
constexpr size_t MEMORY = size_t(256) << 20;

// The allocations by address: accesses outside of them are rejected.
struct Allocation {
    char* start;
    size_t bytes;
};
static std::vector<Allocation> allocations;
static bool is_allocated(void* at, size_t bytes) {
    for (const Allocation& a : allocations)
        if (at >= a.start && static_cast<char*>(at) + bytes <= a.start + a.bytes) return true;
    return false;
}

// Bytes of shared memory that a launch of a kernel may add.
static std::map<const Entry*, unsigned> allowed;

// A launch with copies of its parameters, of which the first are the words of `Args`.
struct Launch {
    const Entry* kernel;
    dim3 grid;
    unsigned shared;
    std::array<std::array<uint32_t, 16>, 32> words;
};
typedef std::vector<Launch> Graph;
// The graph into which launches go while they are captured.
static Graph* capturing;

static void run(const Launch& launch) {
    void* parameters[32];
    for (size_t i = 0; i < 32; i++) parameters[i] = const_cast<uint32_t*>(launch.words[i].data());
    ::launch(launch.kernel, launch.grid, launch.shared, parameters);
}

// Which part of making a graph fails: EMULATED_BREAKS names it.
static bool breaks(const char* part) {
    const char* name = getenv("EMULATED_BREAKS");
    return name && strcmp(name, part) == 0;
}

// At the end, the file that EMULATED_COUNTS names tells what was launched.
static struct Counts {
    unsigned long launches = 0, graphs = 0, in_graphs = 0;
    ~Counts() {
        const char* name = getenv("EMULATED_COUNTS");
        FILE* file = name ? fopen(name, "w") : nullptr;
        if (!file) return;
        fprintf(file, "%lu %lu %lu", launches, graphs, in_graphs);
        fclose(file);
    }
} counts;

extern "C" {
Result cuInit(unsigned) { return OK; }
Result cuGetExportTable(const void** interface, const void*) { return *interface = nullptr, NOT_FOUND; }  // NVRTC asks
Result cuGetErrorString(Result error, const char** text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : error == INVALID_VALUE ? "invalid value" : "an error";
    return OK;
}
Result cuDeviceGetCount(int* count) { return *count = 1, OK; }
Result cuDeviceGet(int* device, int number) { return *device = number, number == 0 ? OK : INVALID_VALUE; }
Result cuDeviceGetName(char* name, int size, int) { return snprintf(name, size_t(size), "Emulated"), OK; }
Result cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = MEMORY, OK; }
Result cuDeviceGetAttribute(int* value, int attribute, int) {
    return *value = attribute == 75 ? 8 : 0, OK;  // compute capability 8.0, no memory pools
}
Result cuDevicePrimaryCtxRetain(void** context, int) { return *context = &allocations, OK; }
Result cuDevicePrimaryCtxRelease_v2(int) { return OK; }
Result cuCtxGetCurrent(void** context) { return *context = &allocations, OK; }
Result cuCtxSetCurrent(void*) { return OK; }
Result cuStreamSynchronize(void*) { return OK; }
Result cuStreamWaitEvent(void*, void*, unsigned) { return OK; }
Result cuEventCreate(void** event, unsigned) { return *event = &allocations, OK; }
Result cuEventRecord(void*, void*) { return OK; }
Result cuEventDestroy_v2(void*) { return OK; }
Result cuMemAlloc_v2(void** address, size_t bytes) {
    size_t used = bytes;
    for (const Allocation& a : allocations) used += a.bytes;
    if (used > MEMORY) return OUT_OF_MEMORY;
    *address = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(*address, 0xcd, bytes);
    allocations.push_back({static_cast<char*>(*address), bytes});
    return OK;
}
Result cuMemFree_v2(void* address) {
    if (capturing) return CAPTURE_UNSUPPORTED;
    for (size_t i = 0; i < allocations.size(); i++) {
        if (allocations[i].start != address) continue;
        free(address);
        allocations.erase(allocations.begin() + long(i));
        return OK;
    }
    return INVALID_VALUE;
}
Result cuMemsetD8Async(void* to, unsigned char value, size_t bytes, void*) {
    return !capturing && is_allocated(to, bytes) ? memset(to, value, bytes), OK : INVALID_VALUE;
}
Result cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void*) {
    return !capturing && is_allocated(to, bytes) ? memcpy(to, from, bytes), OK : INVALID_VALUE;
}
Result cuMemcpyDtoHAsync_v2(void* to, void* from, size_t bytes, void*) {
    return !capturing && is_allocated(from, bytes) ? memcpy(to, from, bytes), OK : INVALID_VALUE;
}
Result cuModuleLoadData(void** module, const void* image) {
    return *module = &allocations, memcmp(image, "\x7f" "ELF", 4) == 0 ? OK : INVALID_VALUE;
}
Result cuModuleUnload(void*) { return OK; }
Result cuModuleGetFunction(const void** function, void*, const char* name) {
    for (size_t i = 0; i < entries; i++)
        if (strcmp(table[i].name, name) == 0) return *function = &table[i], OK;
    return NOT_FOUND;
}
Result cuFuncSetAttribute(const Entry* kernel, int attribute, int value) {
    if (attribute != 8 || size_t(value) > LAUNCHED) return INVALID_VALUE;
    allowed[kernel] = unsigned(value);
    return OK;
}
Result cuLaunchKernel(const Entry* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned x, unsigned y, unsigned z,
                      unsigned shared, void* stream, void** parameters, void**) {
    const dim3& block = kernel->block;
    bool good = block.x == x && block.y == y && block.z == z && grid_x * grid_y * grid_z != 0 && shared <= allowed[kernel];
    for (size_t i = 1; i < kernel->parameters; i += 2) {
        good &= is_allocated(*static_cast<void**>(parameters[i]), *static_cast<unsigned long long*>(parameters[i + 1]));
    }
    if (!good) return INVALID_VALUE;
    Launch launch{kernel, {grid_x, grid_y, grid_z}, shared, {}};
    for (size_t i = 0; i < kernel->parameters; i++)
        memcpy(launch.words[i].data(), parameters[i], i == 0 ? sizeof launch.words[i] : 8);
    if (capturing) {
        capturing->push_back(launch);
        return breaks("launch") ? CAPTURE_INVALIDATED : OK;
    }
    counts.launches++;
    return run(launch), OK;
}

Result cuStreamCreate(void** stream, unsigned) { return *stream = &allowed, OK; }
Result cuStreamDestroy_v2(void*) { return OK; }
Result cuStreamBeginCapture_v2(void* stream, int) {
    // The default stream cannot be captured.
    if (!stream || capturing || breaks("begin")) return CAPTURE_UNSUPPORTED;
    return capturing = new Graph, OK;
}
Result cuStreamEndCapture(void*, Graph** graph) {
    if (!capturing) return INVALID_VALUE;
    *graph = breaks("launch") ? nullptr : capturing;
    return capturing = nullptr, *graph ? OK : CAPTURE_INVALIDATED;
}
Result cuGraphInstantiateWithFlags(Graph** made, const Graph* graph, unsigned long long) {
    if (breaks("instantiate")) return CAPTURE_UNSUPPORTED;
    return *made = new Graph(*graph), OK;
}
Result cuGraphLaunch(const Graph* graph, void*) {
    if (capturing) return CAPTURE_UNSUPPORTED;
    counts.graphs++;
    for (const Launch& launch : *graph) {
        counts.in_graphs++;
        run(launch);
    }
    return OK;
}
Result cuGraphDestroy(Graph* graph) { return delete graph, OK; }
Result cuGraphExecDestroy(Graph* graph) { return delete graph, OK; }
}
