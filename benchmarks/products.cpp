// What a matrix product takes with ggml's plain code, with what ggml repacks, and with our kernels, for each format of
// weights: milliseconds for 24 matrices of 2048 x 2048, 57 to 107 MB, medians of alternating rounds.
//
//     build/peers/bin/products [THREADS [ROUNDS]]
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "llama_loading.h"

namespace {

constexpr int64_t kSize     = 2048;
constexpr int     kMatrices = 24;

struct Free {
    void operator()(ggml_context * context) const { ggml_free(context); }
    void operator()(ggml_backend_buffer * buffer) const { ggml_backend_buffer_free(buffer); }
    void operator()(ggml_backend * backend) const { ggml_backend_free(backend); }
};

ggml_backend_dev_t cpu() {
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

// By name; plain memory first.
std::vector<ggml_backend_buffer_type_t> buffer_types() {
    std::vector<ggml_backend_buffer_type_t> result{ggml_backend_cpu_buffer_type()};
    const auto get = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu()), "ggml_backend_dev_get_extra_bufts"));
    for (ggml_backend_buffer_type_t * type = get(cpu()); type != nullptr && *type != nullptr; ++type) {
        result.push_back(*type);
    }
    return result;
}

// One graph: kMatrices products with the same activations.
class Products {
public:
    Products(ggml_backend_buffer_type_t where, ggml_type type, int64_t rows, const std::vector<uint8_t> & weights)
        : context_(context()), scratch_(context()) {
        ggml_tensor * x = ggml_new_tensor_2d(scratch_.get(), GGML_TYPE_F32, kSize, rows);
        graph_          = ggml_new_graph(scratch_.get());
        for (int i = 0; i < kMatrices; ++i) {
            ggml_tensor * w = ggml_new_tensor_2d(context_.get(), type, kSize, kSize);
            ggml_build_forward_expand(graph_, ggml_mul_mat(scratch_.get(), w, x));
        }
        // As llama.cpp's loader asks: with a buffer of that type, and nothing in it.
        const std::unique_ptr<ggml_backend_buffer, Free> nothing(ggml_backend_buft_alloc_buffer(where, 0));
        ggml_tensor * first = ggml_get_first_tensor(context_.get());
        first->buffer       = nothing.get();
        usable_             = ggml_backend_dev_supports_op(cpu(), ggml_graph_node(graph_, 0));
        first->buffer       = nullptr;
        if (!usable_) {
            return;
        }
        weights_.reset(ggml_backend_alloc_ctx_tensors_from_buft(context_.get(), where));
        activations_.reset(ggml_backend_alloc_ctx_tensors_from_buft(scratch_.get(), ggml_backend_cpu_buffer_type()));
        for (ggml_tensor * w = first; w != nullptr; w = ggml_get_next_tensor(context_.get(), w)) {
            ggml_backend_tensor_set(w, weights.data(), 0, weights.size());
        }
        std::mt19937                    random(2);
        std::normal_distribution<float> values;
        for (int64_t i = 0; i < ggml_nelements(x); ++i) {
            static_cast<float *>(x->data)[i] = values(random);
        }
    }

    bool usable() const { return usable_; }

    double ms(ggml_backend_t backend) {
        const auto began = std::chrono::steady_clock::now();
        ggml_backend_graph_compute(backend, graph_);
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
    }

private:
    static ggml_context * context() {
        return ggml_init({(2 * kMatrices + 4) * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true});
    }

    std::unique_ptr<ggml_context, Free>        context_;
    std::unique_ptr<ggml_context, Free>        scratch_;
    std::unique_ptr<ggml_backend_buffer, Free> weights_;
    std::unique_ptr<ggml_backend_buffer, Free> activations_;
    ggml_cgraph *                              graph_  = nullptr;
    bool                                       usable_ = false;
};

std::vector<uint8_t> quantized(ggml_type type) {
    std::mt19937                    random(1);
    std::normal_distribution<float> values(0, 0.02f);
    std::vector<float>              matrix(kSize * kSize);
    std::generate(matrix.begin(), matrix.end(), [&] { return values(random); });
    std::vector<uint8_t> result(ggml_row_size(type, kSize) * kSize);
    ggml_quantize_chunk(type, matrix.data(), result.data(), 0, kSize, kSize, nullptr);
    return result;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

void compare(ggml_type type, int64_t rows, int rounds, ggml_backend_t backend) {
    const std::vector<uint8_t>                  weights = quantized(type);
    std::map<std::string, std::vector<double>>  taken;
    std::vector<std::pair<std::string, std::unique_ptr<Products>>> ways;
    for (ggml_backend_buffer_type_t where : buffer_types()) {
        auto products = std::make_unique<Products>(where, type, rows, weights);
        if (products->usable()) {
            products->ms(backend);
            ways.emplace_back(ggml_backend_buft_name(where), std::move(products));
        }
    }
    for (int round = 0; round < rounds; ++round) {
        for (auto & [name, products] : ways) {
            taken[name].push_back(products->ms(backend));
        }
    }
    std::printf("| %s | %d |", ggml_type_name(type), static_cast<int>(rows));
    for (const char * name : {"CPU", "CPU_REPACK", "CPU_INFERNO"}) {
        taken.count(name) > 0 ? std::printf(" %.2f |", median(taken[name])) : std::printf(" |");
    }
    std::printf("\n");
}

}  // namespace

int main(int argc, char ** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
    const int rounds  = argc > 2 ? std::atoi(argv[2]) : 9;
    inferno::start_llama();
    const std::unique_ptr<ggml_backend, Free> backend(ggml_backend_dev_init(cpu(), nullptr));
    ggml_backend_cpu_set_n_threads(backend.get(), threads);
    std::printf("| weights | rows | ggml | ggml, repacked | ours |\n|---|---|---|---|---|\n");
    for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q8_0,
                                 GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K}) {
        for (const int64_t rows : {1, 4, 16, 512}) {
            compare(type, rows, rounds, backend.get());
        }
    }
}
