// Our matrix kernels against ggml's own arithmetic: every kind this processor can run, every format, odd shapes.
#include <ggml-alloc.h>
#include <ggml-backend.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "graph_compute.h"
#include "kernels/matmul.h"
#include "kernels/packed_weights.h"
#include "kernels/weights_buffer.h"
#include "llama_loading.h"
#include "test.h"

namespace inferno::kernels {
namespace {

constexpr ggml_type kTypes[] = {GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1,
                                GGML_TYPE_Q8_0, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K};

enum class Values { ordinary, extreme };

// Where a block has its half-precision scales.
std::vector<size_t> places_of_scales(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q5_K:
            return {0, 2};
        case GGML_TYPE_Q6_K:
            return {ggml_type_size(type) - 2};
        default:
            return {0};
    }
}

// Blocks as a file may hold them: any quants, scales of either sign, zero or near the largest half.
std::vector<uint8_t> random_blocks(ggml_type type, int64_t rows, int64_t columns, Values values, std::mt19937 & random) {
    std::vector<uint8_t> blocks(ggml_row_size(type, columns) * static_cast<size_t>(rows));
    std::uniform_real_distribution<float> ordinary(-0.02f, 0.02f);
    const float                           extremes[] = {0.0f, 60000.0f, -60000.0f, 6e-8f, 1.0f};
    for (uint8_t & byte : blocks) {
        byte = static_cast<uint8_t>(values == Values::ordinary ? random() : random() % 2 == 0 ? 0xff : 0x80);
    }
    for (size_t block = 0; block < blocks.size(); block += ggml_type_size(type)) {
        for (const size_t place : places_of_scales(type)) {
            const float       scale = values == Values::ordinary ? ordinary(random) : extremes[random() % 5];
            const ggml_fp16_t half  = ggml_fp32_to_fp16(scale);
            std::memcpy(blocks.data() + block + place, &half, 2);
        }
    }
    return blocks;
}

std::vector<float> random_activations(int64_t n, Values values, std::mt19937 & random) {
    std::normal_distribution<float> normal(0, 2);
    std::vector<float>              result(static_cast<size_t>(n));
    for (float & x : result) {
        x = values == Values::ordinary ? normal(random) : random() % 3 == 0 ? 0.0f : std::ldexp(normal(random), 6);
    }
    return result;
}

// Leaves the scales and minima: the quants are the last bytes of a block, but for Q6_K, which begins with them.
void clear_quants(ggml_type type, std::vector<uint8_t> & blocks) {
    const size_t scales = type == GGML_TYPE_Q6_K                             ? 0
                          : type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q5_K ? 16
                                                                             : 2 * places_of_scales(type).size();
    const size_t quants = type == GGML_TYPE_Q6_K ? 192 : ggml_type_size(type) - scales;
    for (size_t block = 0; block < blocks.size(); block += ggml_type_size(type)) {
        std::memset(blocks.data() + block + scales, 0, quants);
    }
}

// ggml's answer for one output, and the size of its terms, which bounds what the order of additions can change.
struct Reference {
    double value;
    double size;
};

Reference reference(ggml_type type, const uint8_t * weights, const float * activations, int64_t columns) {
    const auto *         traits = ggml_get_type_traits_cpu(type);
    std::vector<uint8_t> quantized(ggml_row_size(traits->vec_dot_type, columns));
    ggml_get_type_traits_cpu(traits->vec_dot_type)->from_float(activations, quantized.data(), columns);
    float value = 0;
    traits->vec_dot(static_cast<int>(columns), &value, 0, weights, 0, quantized.data(), 0, 1);
    // Weights of a format with minima are differences: what is subtracted counts by itself, and it is at most the
    // largest weight of the same block with all its quants zero.
    std::vector<uint8_t> block(weights, weights + ggml_row_size(type, columns));
    std::vector<float>   w(static_cast<size_t>(columns)), minima(static_cast<size_t>(columns));
    ggml_get_type_traits(type)->to_float(block.data(), w.data(), columns);
    clear_quants(type, block);
    ggml_get_type_traits(type)->to_float(block.data(), minima.data(), columns);
    double size = 0;
    for (size_t i = 0; i < w.size(); ++i) {
        const double weight = std::fabs(static_cast<double>(w[i])) + 2 * std::fabs(static_cast<double>(minima[i]));
        size += weight * std::fabs(static_cast<double>(activations[i]));
    }
    return {static_cast<double>(value), size};
}

bool agrees(float ours, const Reference & expected, int64_t columns) {
    const double rounding = 2e-7 * static_cast<double>(columns / kUnit + 8);
    return std::isfinite(ours) && std::fabs(static_cast<double>(ours) - expected.value) <= rounding * expected.size + 1e-30;
}

// Quantize and multiply by hand, tile by tile, into a matrix with a margin that must stay as it is.
void check_kernels(const Kernels & kernels, const Packing & packing, int64_t rows, int64_t columns, int n, Values values,
                   std::mt19937 & random) {
    const auto           blocks      = random_blocks(static_cast<ggml_type>(packing.type), rows, columns, values, random);
    const auto           activations = random_activations(n * columns, values, random);
    std::vector<uint8_t> storage(packing.format.bytes(rows, columns) + 64);
    auto *               panels = storage.data() + (64 - reinterpret_cast<uintptr_t>(storage.data()) % 64) % 64;
    packing.pack(blocks.data(), rows, columns, panels);

    std::vector<uint8_t>       tile(tile_bytes(packing.format, n, columns));
    std::vector<const float *> pointers;
    for (int i = 0; i < n; ++i) {
        pointers.push_back(activations.data() + i * columns);
    }
    kernels.quantize(packing.format, pointers.data(), n, columns, tile.data());
    constexpr float    kUntouched = 12345.0f;
    std::vector<float> output(static_cast<size_t>((rows + 5) * n), kUntouched);
    std::vector<float> one_by_one = output;
    const auto multiply = [&](int64_t first, int64_t n_columns, std::vector<float> & results) {
        const auto * panel = panels + static_cast<size_t>(first / kPanelRows) * packing.format.panel_bytes(columns);
        kernels.multiply(packing.format, panel, tile.data(), n, columns, results.data() + first, rows + 5,
                         static_cast<int>(std::min(n_columns, rows - first)), first == 0);
    };
    for (int64_t first = 0; first < rows; first += kPanelRows) {
        multiply(first, kPanelRows, one_by_one);
    }
    for (int64_t first = 0; first < rows; first += kPanelsAtOnce * kPanelRows) {
        multiply(first, kPanelsAtOnce * kPanelRows, output);
    }
    CHECK(output == one_by_one);
    const size_t row_bytes = ggml_row_size(static_cast<ggml_type>(packing.type), columns);
    for (int i = 0; i < n; ++i) {
        const float * out = output.data() + i * (rows + 5);
        for (int64_t row = 0; row < rows; ++row) {
            const auto * weights = blocks.data() + static_cast<size_t>(row) * row_bytes;
            CHECK(agrees(out[row], reference(static_cast<ggml_type>(packing.type), weights, pointers[static_cast<size_t>(i)], columns), columns));
        }
        for (int64_t margin = rows; margin < rows + 5; ++margin) {
            CHECK_EQ(out[margin], kUntouched);
        }
    }
}

TEST(kernels_agree_with_ggml_for_all_tile_heights_and_odd_shapes) {
    start_llama();  // ggml's tables of half-precision numbers
    std::mt19937 random(1);
    for (const Kernels * kernels : usable_kernels()) {
        for (const ggml_type type : kTypes) {
            const Packing & packing = *packing_of_type(type);
            if (!kernels->supports(packing.format)) {
                continue;
            }
            const int64_t step = packing.format.activation_block();
            for (int n = 1; n <= kMaxTileRows; ++n) {
                check_kernels(*kernels, packing, 32, 2 * step, n, Values::ordinary, random);
                check_kernels(*kernels, packing, 32, 2 * step, n, Values::extreme, random);
            }
            for (int i = 0; i < 20; ++i) {
                const auto rows    = static_cast<int64_t>(1 + random() % 70);
                const auto columns = static_cast<int64_t>(step * (1 + random() % (640 / step)));
                check_kernels(*kernels, packing, rows, columns, 1 + static_cast<int>(random() % kMaxTileRows),
                              i % 2 == 0 ? Values::ordinary : Values::extreme, random);
            }
        }
    }
}

TEST(rows_are_unpacked_as_ggml_does) {
    start_llama();
    std::mt19937 random(4);
    for (const ggml_type type : kTypes) {
        const Packing & packing = *packing_of_type(type);
        for (const Values values : {Values::ordinary, Values::extreme}) {
            constexpr int64_t    kRows = 37, kColumns = 2 * kSuper;
            const auto           blocks = random_blocks(type, kRows, kColumns, values, random);
            std::vector<uint8_t> panels(packing.format.bytes(kRows, kColumns));
            packing.pack(blocks.data(), kRows, kColumns, panels.data());
            auto minima = blocks;
            clear_quants(type, minima);
            for (int64_t row = 0; row < kRows; ++row) {
                const size_t       offset = static_cast<size_t>(row) * ggml_row_size(type, kColumns);
                std::vector<float> expected(kColumns), least(kColumns), ours(kColumns);
                ggml_get_type_traits(type)->to_float(blocks.data() + offset, expected.data(), kColumns);
                ggml_get_type_traits(type)->to_float(minima.data() + offset, least.data(), kColumns);
                unpack_row(packing.format, panels.data(), row, kColumns, ours.data());
                for (size_t i = 0; i < ours.size(); ++i) {
                    const double size = std::fabs(static_cast<double>(expected[i])) + std::fabs(static_cast<double>(least[i]));
                    CHECK(std::fabs(static_cast<double>(ours[i]) - static_cast<double>(expected[i])) <= 2e-7 * size);
                }
            }
        }
    }
}

TEST(a_row_does_not_depend_on_its_neighbours) {
    std::mt19937 random(3);
    for (const Kernels * kernels : usable_kernels()) {
        for (const ggml_type type : kTypes) {
            const Packing & packing = *packing_of_type(type);
            if (!kernels->supports(packing.format)) {
                continue;
            }
            constexpr int64_t    kColumns    = 2 * kSuper;
            const auto           blocks      = random_blocks(type, kPanelRows, kColumns, Values::ordinary, random);
            const auto           activations = random_activations(kMaxTileRows * kColumns, Values::ordinary, random);
            std::vector<uint8_t> panel(packing.format.bytes(kPanelRows, kColumns));
            packing.pack(blocks.data(), kPanelRows, kColumns, panel.data());
            const auto product = [&](int first, int n) {
                std::vector<const float *> rows;
                for (int row = first; row < first + n; ++row) {
                    rows.push_back(activations.data() + row * kColumns);
                }
                std::vector<uint8_t> tile(tile_bytes(packing.format, n, kColumns));
                kernels->quantize(packing.format, rows.data(), n, kColumns, tile.data());
                std::vector<float> output(static_cast<size_t>(n * kPanelRows));
                kernels->multiply(packing.format, panel.data(), tile.data(), n, kColumns, output.data(), kPanelRows, 16, false);
                return output;
            };
            const auto together = product(0, kMaxTileRows);
            for (int row = 0; row < kMaxTileRows; ++row) {
                const auto alone = product(row, 1);
                CHECK(std::equal(alone.begin(), alone.end(), together.begin() + row * kPanelRows));
            }
        }
    }
}

// A MUL_MAT as llama.cpp's graphs have it, on weights in a buffer of the given type.
class Graph {
public:
    Graph(ggml_backend_buffer_type_t type, const Packing & packing, int64_t rows, int64_t columns, int64_t n1, int64_t n2)
        : weights_context_(context()), work_context_(context()) {
        weights_ = ggml_new_tensor_2d(weights_context_.get(), static_cast<ggml_type>(packing.type), columns, rows);
        weights_buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(weights_context_.get(), type));
        activations_ = ggml_new_tensor_3d(work_context_.get(), GGML_TYPE_F32, columns, n1, n2);
        // Rows that lie in memory in another order than they are counted, as after a permutation.
        auto * turned = ggml_permute(work_context_.get(), activations_, 0, 2, 1, 3);
        output_       = ggml_mul_mat(work_context_.get(), weights_, turned);
        graph_        = ggml_new_graph(work_context_.get());
        ggml_build_forward_expand(graph_, output_);
        work_buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(work_context_.get(), ggml_backend_cpu_buffer_type()));
    }

    std::vector<float> compute(const std::vector<uint8_t> & blocks, const std::vector<float> & activations, int threads) {
        ggml_backend_tensor_set(weights_, blocks.data(), 0, blocks.size());
        ggml_backend_tensor_set(activations_, activations.data(), 0, activations.size() * sizeof(float));
        CHECK_EQ(static_cast<int>(testing::compute(graph_, threads)), static_cast<int>(GGML_STATUS_SUCCESS));
        std::vector<float> result(static_cast<size_t>(ggml_nelements(output_)));
        ggml_backend_tensor_get(output_, result.data(), 0, result.size() * sizeof(float));
        return result;
    }

private:
    struct Free {
        void operator()(ggml_context * context) const { ggml_free(context); }
        void operator()(ggml_backend_buffer * buffer) const { ggml_backend_buffer_free(buffer); }
    };

    static ggml_context * context() { return ggml_init({16 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true}); }

    std::unique_ptr<ggml_context, Free>        weights_context_, work_context_;
    std::unique_ptr<ggml_backend_buffer, Free> weights_buffer_, work_buffer_;
    ggml_tensor *                              weights_     = nullptr;
    ggml_tensor *                              activations_ = nullptr;
    ggml_tensor *                              output_      = nullptr;
    ggml_cgraph *                              graph_       = nullptr;
};

void check_graph(const Packing & packing, int64_t rows, int64_t columns, int64_t n1, int64_t n2, int threads,
                 std::mt19937 & random) {
    const auto blocks      = random_blocks(static_cast<ggml_type>(packing.type), rows, columns, Values::ordinary, random);
    const auto activations = random_activations(columns * n1 * n2, Values::ordinary, random);
    Graph      ours(weights_buffer_type(), packing, rows, columns, n1, n2);
    const auto result    = ours.compute(blocks, activations, threads);
    const auto row_bytes = ggml_row_size(static_cast<ggml_type>(packing.type), columns);
    for (int64_t i = 0; i < n1 * n2; ++i) {
        const int64_t turned = i % n2 * n1 + i / n2;
        for (int64_t row = 0; row < rows; ++row) {
            const auto expected = reference(static_cast<ggml_type>(packing.type), blocks.data() + static_cast<size_t>(row) * row_bytes,
                                            activations.data() + turned * columns, columns);
            CHECK(agrees(result[static_cast<size_t>(i * rows + row)], expected, columns));
        }
    }
}

TEST(products_in_a_graph_agree_with_ggml) {
    start_llama();
    if (weights_buffer_type() == nullptr) {
        return;
    }
    std::mt19937 random(2);
    for (const ggml_type type : kTypes) {
        const Packing & packing = *packing_of_type(type);
        if (!best_kernels()->supports(packing.format)) {
            continue;
        }
        const int64_t step = packing.format.activation_block();
        for (int64_t n = 1; n <= 64; ++n) {
            check_graph(packing, 48, 2 * step, n, 1, 1 + static_cast<int>(n % 3), random);
        }
        check_graph(packing, 40, 1536, 512, 1, 2, random);
        check_graph(packing, 1, step, 1, 1, 2, random);
        check_graph(packing, 33, 3 * step, 3, 5, 2, random);
    }
}

TEST(kernels_survive_activations_that_are_no_numbers) {
    const float values[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::max()};
    for (const Kernels * kernels : usable_kernels()) {
        for (const float value : values) {
            const std::vector<float> row(kSuper, value);
            const float *            rows[] = {row.data()};
            for (const Format & format : {kQ4_0, kQ4_1, kQ6_K}) {
                std::vector<uint8_t> tile(tile_bytes(format, 1, kSuper));
                kernels->quantize(format, rows, 1, kSuper, tile.data());
            }
        }
    }
}

}  // namespace
}  // namespace inferno::kernels
