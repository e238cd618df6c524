// What this machine can do at most: bytes read from memory, and int8 multiply-adds in registers, with one thread and with
// as many as given. Prints JSON: {"read_gb_s": {"1": ..., "2": ...}, "int8_top_s": {...}, "int8_instructions": "..."}.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#if defined(__AVX512VNNI__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kBytes      = size_t(512) << 20;  // far more than any cache
constexpr int    kRepeats    = 20;
constexpr int    kChains     = 10;  // independent sums: enough to hide an instruction's latency
constexpr long   kIterations = 4'000'000;

// Seconds from the moment all threads begin to the end of the last; the best of a few repetitions.
double best_seconds(int threads, const std::function<void(int)> & work) {
    double best = 1e9;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
        std::atomic<int>               waiting{threads};
        std::vector<Clock::time_point> begun(threads), ended(threads);
        std::vector<std::thread>       pool;
        for (int i = 0; i < threads; ++i) {
            pool.emplace_back([&, i] {
                for (--waiting; waiting.load() > 0;) {
                }
                begun[i] = Clock::now();
                work(i);
                ended[i] = Clock::now();
            });
        }
        for (auto & thread : pool) {
            thread.join();
        }
        const auto first = *std::min_element(begun.begin(), begun.end());
        const auto last  = *std::max_element(ended.begin(), ended.end());
        best             = std::min(best, std::chrono::duration<double>(last - first).count());
    }
    return best;
}

std::atomic<uint64_t> sink{0};  // results go here, so that no work is optimised away

double read_gb_per_s(int threads, const std::vector<uint64_t> & data) {
    const size_t share   = data.size() / threads;
    const double seconds = best_seconds(threads, [&](int i) {
        uint64_t         sums[8] = {};
        const uint64_t * from    = data.data() + i * share;
        for (size_t j = 0; j + 8 <= share; j += 8) {
            for (int k = 0; k < 8; ++k) {
                sums[k] += from[j + k];
            }
        }
        for (const uint64_t sum : sums) {
            sink += sum;
        }
    });
    return static_cast<double>(share * threads * sizeof(uint64_t)) / seconds / 1e9;
}

#if defined(__AVX512VNNI__)
constexpr const char * kInstructions = "AVX-512 VNNI";
constexpr int          kMacs         = 64;
using Vector                         = __m512i;

Vector filled(int value) {
    return _mm512_set1_epi32(value);
}

Vector multiply_add(Vector sum, Vector a, Vector b) {
    return _mm512_dpbusd_epi32(sum, a, b);
}
#elif defined(__AVX2__)
#if defined(__AVXVNNI__)
constexpr const char * kInstructions = "AVX-VNNI";
#else
constexpr const char * kInstructions = "AVX2";
#endif
constexpr int kMacs = 32;
using Vector        = __m256i;

Vector filled(int value) {
    return _mm256_set1_epi32(value);
}

Vector multiply_add(Vector sum, Vector a, Vector b) {
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, a, b);
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
#endif
}
#else
constexpr const char * kInstructions = nullptr;  // not measured on this kind of processor
#endif

#if defined(__AVX512VNNI__) || defined(__AVX2__)
double int8_tera_ops(int threads) {
    const double seconds = best_seconds(threads, [](int i) {
        const Vector a = filled(0x01010101 * (i + 1));
        const Vector b = filled(0x01020102);
        // Variables, not an array: gcc would copy that around in each turn, which takes as long as the additions.
        // They differ, so that none is another.
        Vector s0 = filled(0), s1 = filled(1), s2 = filled(2), s3 = filled(3), s4 = filled(4), s5 = filled(5),
               s6 = filled(6), s7 = filled(7), s8 = filled(8), s9 = filled(9);
        const auto add = [&](auto &... sums) { ((sums = multiply_add(sums, a, b)), ...); };
        for (long n = 0; n < kIterations; ++n) {
            add(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9);
            __asm__ volatile("");  // turns are not merged
        }
        const auto keep = [](auto... sums) {
            for (const Vector & sum : {sums...}) {
                int32_t lane;
                __builtin_memcpy(&lane, &sum, sizeof lane);
                sink += static_cast<uint64_t>(lane);
            }
        };
        keep(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9);
    });
    return 2.0 * kMacs * kChains * static_cast<double>(kIterations) * threads / seconds / 1e12;
}
#else
double int8_tera_ops(int) {
    return 0;
}
#endif

void print_row(const char * name, int threads, const std::function<double(int)> & measure) {
    std::printf("\"%s\": {", name);
    std::printf("\"1\": %.3f", measure(1));
    if (threads > 1) {
        std::printf(", \"%d\": %.3f", threads, measure(threads));
    }
    std::printf("}, ");
}

}  // namespace

int main(int argc, char ** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
    if (threads < 1 || threads > 1024) {
        std::fprintf(stderr, "usage: %s THREADS\n", argv[0]);
        return 2;
    }
    std::printf("{");
    const std::vector<uint64_t> data(kBytes / sizeof(uint64_t), 3);
    print_row("read_gb_s", threads, [&](int n) { return read_gb_per_s(n, data); });
    if (kInstructions != nullptr) {
        print_row("int8_top_s", threads, int8_tera_ops);
    }
    std::printf("\"int8_instructions\": \"%s\"}\n", kInstructions != nullptr ? kInstructions : "");
}
