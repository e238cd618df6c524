// RMS normalization times weights, as ggml's graphs call it, against a plain computation in double precision.
#include "kernels/rms_norm.h"

#include <cpu_internals.h>
#include <ggml-alloc.h>
#include <ggml-backend.h>

#include <atomic>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "graph_compute.h"
#include "kernels/cpu_backend.h"
#include "kernels/weights_buffer.h"
#include "llama_loading.h"
#include "test.h"

namespace inferno::kernels {
namespace {

constexpr float kEpsilon = 1e-5f;

struct Free {
    void operator()(ggml_context * context) const { ggml_free(context); }
    void operator()(ggml_backend_buffer * buffer) const { ggml_backend_buffer_free(buffer); }
};

// Rows of n floats, `apart` floats from each other in memory; one row of weights for all, or for each of the second kind.
struct Case {
    Case(int64_t n, int64_t rows, int64_t others, bool weights_apart, int64_t apart) {
        context.reset(ggml_init({16 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true}));
        ggml_context * c = context.get();
        memory  = ggml_new_tensor_3d(c, GGML_TYPE_F32, apart, rows, others);
        weights = ggml_new_tensor_3d(c, GGML_TYPE_F32, n, 1, weights_apart ? others : 1);
        x       = ggml_view_3d(c, memory, n, rows, others, memory->nb[1], memory->nb[2], 0);
        output  = ggml_mul(c, ggml_rms_norm(c, x, kEpsilon), weights);
        graph   = ggml_new_graph(c);
        ggml_build_forward_expand(graph, output);
        buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(c, ggml_backend_cpu_buffer_type()));
        std::mt19937                    random(5);
        std::normal_distribution<float> values(0.3f, 2);
        for (ggml_tensor * tensor : {memory, weights}) {
            for (int64_t i = 0; i < ggml_nelements(tensor); ++i) {
                static_cast<float *>(tensor->data)[i] = values(random);
            }
        }
    }

    // The largest difference from what it should be, relative to that.
    double error() const {
        double result = 0;
        for (int64_t i2 = 0; i2 < x->ne[2]; ++i2) {
            for (int64_t i1 = 0; i1 < x->ne[1]; ++i1) {
                const float * row = row_of(x, i1, i2);
                const float * w   = row_of(weights, 0, i2 % weights->ne[2]);
                double        sum = 0;
                for (int64_t i = 0; i < x->ne[0]; ++i) {
                    sum += static_cast<double>(row[i]) * static_cast<double>(row[i]);
                }
                const double scale = 1 / std::sqrt(sum / static_cast<double>(x->ne[0]) + static_cast<double>(kEpsilon));
                for (int64_t i = 0; i < x->ne[0]; ++i) {
                    const double right = static_cast<double>(row[i]) * scale * static_cast<double>(w[i]);
                    const double is    = static_cast<double>(row_of(output, i1, i2)[i]);
                    result             = std::max(result, std::fabs(is - right) / (std::fabs(right) + 1e-30));
                }
            }
        }
        return result;
    }

    static float * row_of(const ggml_tensor * tensor, int64_t i1, int64_t i2) {
        return reinterpret_cast<float *>(static_cast<char *>(tensor->data) + static_cast<size_t>(i1) * tensor->nb[1] +
                                         static_cast<size_t>(i2) * tensor->nb[2]);
    }

    std::unique_ptr<ggml_context, Free>        context;
    std::unique_ptr<ggml_backend_buffer, Free> buffer;
    ggml_tensor *memory, *weights, *x, *output;
    ggml_cgraph * graph;
};

TEST(rows_are_normalized_and_weighed) {
    start_llama();
    for (const bool ours : {true, false}) {
        use_kernels(ours);
        for (const int64_t n : {1, 7, 16, 33, 576, 2048}) {
            for (const int threads : {1, 3}) {
                for (const bool weights_apart : {false, true}) {
                    const Case c(n, 5, 3, weights_apart, n + 3);
                    CHECK(testing::compute(c.graph, threads) == GGML_STATUS_SUCCESS);
                    CHECK(c.error() < 1e-6);
                }
            }
        }
    }
    use_kernels(true);
}

std::atomic<int> n_asked{0};

TEST(ggml_asks_for_them_and_does_what_is_not_taken) {
    start_llama();
    if (cpu_backend == nullptr || weights_buffer_type() == nullptr) {
        return;
    }
    cpu_backend->set_rms_norm([](const ggml_compute_params *, const ggml_tensor *, ggml_tensor *) {
        ++n_asked;
        return false;
    });
    const Case c(64, 4, 1, false, 64);
    CHECK(testing::compute(c.graph, 2) == GGML_STATUS_SUCCESS);
    CHECK_EQ(n_asked.load(), 2);  // threads
    CHECK(c.error() < 1e-6);
    register_rms_norm();
}

}  // namespace
}  // namespace inferno::kernels
