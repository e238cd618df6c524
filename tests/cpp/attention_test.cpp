// Our attention, as ggml's graphs call it, against a plain computation in double precision.
#include <ggml-alloc.h>
#include <ggml-backend.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "graph_compute.h"
#include "kernels/attention.h"
#include "kernels/attention_op.h"
#include "llama_loading.h"
#include "test.h"

namespace inferno::kernels {
namespace {

struct Shape {
    int64_t head_size, heads, key_heads, positions, cells, streams;
};

// Which cells a position of a stream sees.
using Sees = bool (*)(const Shape & shape, int64_t stream, int64_t position, int64_t cell);

bool causal(const Shape & shape, int64_t stream, int64_t position, int64_t cell) {
    return cell <= shape.cells - shape.positions + position - 7 * stream;
}
bool scattered(const Shape &, int64_t stream, int64_t position, int64_t cell) {
    return (cell * 7 + position * 3 + stream) % 5 == 0 && cell % 128 < 70;
}
bool nothing_for_some(const Shape &, int64_t, int64_t position, int64_t cell) {
    return position % 2 == 1 && cell == 3;
}

struct Free {
    void operator()(ggml_context * context) const { ggml_free(context); }
    void operator()(ggml_backend_buffer * buffer) const { ggml_backend_buffer_free(buffer); }
};

struct Case {
    explicit Case(const Shape & s, float scale_ = 0.125f) : shape(s), scale(scale_) {
        context.reset(ggml_init({16 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true}));
        ggml_context * c = context.get();
        // As llama.cpp has them: heads beside each other in memory, permuted to the front.
        q    = ggml_new_tensor_4d(c, GGML_TYPE_F32, s.head_size, s.heads, s.positions, s.streams);
        k    = ggml_new_tensor_4d(c, GGML_TYPE_F16, s.head_size, s.key_heads, s.cells, s.streams);
        v    = ggml_new_tensor_4d(c, GGML_TYPE_F16, s.head_size, s.key_heads, s.cells, s.streams);
        mask = ggml_new_tensor_4d(c, GGML_TYPE_F16, s.cells, s.positions, 1, s.streams);
        output = ggml_flash_attn_ext(c, ggml_permute(c, q, 0, 2, 1, 3), ggml_permute(c, k, 0, 2, 1, 3),
                                     ggml_permute(c, v, 0, 2, 1, 3), mask, scale, 0, 0);
        graph  = ggml_new_graph(c);
        ggml_build_forward_expand(graph, output);
        buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(c, ggml_backend_cpu_buffer_type()));
    }

    Shape                                shape;
    float                                scale;
    std::unique_ptr<ggml_context, Free>  context;
    std::unique_ptr<ggml_backend_buffer, Free> buffer;
    ggml_tensor *                        q      = nullptr;
    ggml_tensor *                        k      = nullptr;
    ggml_tensor *                        v      = nullptr;
    ggml_tensor *                        mask   = nullptr;
    ggml_tensor *                        output = nullptr;
    ggml_cgraph *                        graph  = nullptr;
};

std::vector<float> fill_float(ggml_tensor * tensor, std::mt19937 & random, float spread) {
    std::normal_distribution<float> normal(0, spread);
    std::vector<float>              values(static_cast<size_t>(ggml_nelements(tensor)));
    for (float & value : values) {
        value = normal(random);
    }
    ggml_backend_tensor_set(tensor, values.data(), 0, values.size() * sizeof(float));
    return values;
}

std::vector<float> fill_half(ggml_tensor * tensor, std::mt19937 & random) {
    std::normal_distribution<float> normal(0, 1);
    std::vector<ggml_fp16_t>        halves(static_cast<size_t>(ggml_nelements(tensor)));
    std::vector<float>              values;
    for (ggml_fp16_t & half : halves) {
        half = ggml_fp32_to_fp16(normal(random));
        values.push_back(ggml_fp16_to_fp32(half));
    }
    ggml_backend_tensor_set(tensor, halves.data(), 0, halves.size() * sizeof(ggml_fp16_t));
    return values;
}

void fill_mask(const Case & c, Sees sees) {
    std::vector<ggml_fp16_t> halves;
    for (int64_t stream = 0; stream < c.shape.streams; ++stream) {
        for (int64_t position = 0; position < c.shape.positions; ++position) {
            for (int64_t cell = 0; cell < c.shape.cells; ++cell) {
                const float value = sees(c.shape, stream, position, cell) ? 0 : -std::numeric_limits<float>::infinity();
                halves.push_back(ggml_fp32_to_fp16(value));
            }
        }
    }
    ggml_backend_tensor_set(c.mask, halves.data(), 0, halves.size() * sizeof(ggml_fp16_t));
}

struct Values {
    std::vector<float> q, k, v;
};

std::vector<double> expected(const Case & c, const Values & values, Sees sees, int64_t stream, int64_t position, int64_t head) {
    const Shape & s        = c.shape;
    const int64_t key_head = head / (s.heads / s.key_heads);
    const float * q        = values.q.data() + ((stream * s.positions + position) * s.heads + head) * s.head_size;
    std::vector<double> result(static_cast<size_t>(s.head_size));
    std::vector<double> scores;
    double              top = -std::numeric_limits<double>::infinity();
    for (int64_t cell = 0; cell < s.cells; ++cell) {
        const float * k     = values.k.data() + ((stream * s.cells + cell) * s.key_heads + key_head) * s.head_size;
        double        score = -std::numeric_limits<double>::infinity();
        if (sees(s, stream, position, cell)) {
            score = 0;
            for (int64_t i = 0; i < s.head_size; ++i) {
                score += static_cast<double>(q[i]) * static_cast<double>(k[i]) * static_cast<double>(c.scale);
            }
        }
        scores.push_back(score);
        top = std::max(top, score);
    }
    double total = 0;
    for (int64_t cell = 0; cell < s.cells; ++cell) {
        const double weight = scores[static_cast<size_t>(cell)] == -std::numeric_limits<double>::infinity()
                                  ? 0
                                  : std::exp(scores[static_cast<size_t>(cell)] - top);
        const float * v = values.v.data() + ((stream * s.cells + cell) * s.key_heads + key_head) * s.head_size;
        total += weight;
        for (int64_t i = 0; i < s.head_size; ++i) {
            result[static_cast<size_t>(i)] += weight * static_cast<double>(v[i]);
        }
    }
    for (double & x : result) {
        x = total > 0 ? x / total : 0;
    }
    return result;
}

void check(const Shape & shape, Sees sees, int threads, float spread = 1) {
    std::mt19937 random(7);
    Case         c(shape);
    CHECK(takes_attention(c.output));
    const Values values{fill_float(c.q, random, spread), fill_half(c.k, random), fill_half(c.v, random)};
    fill_mask(c, sees);
    CHECK_EQ(static_cast<int>(testing::compute(c.graph, threads)), static_cast<int>(GGML_STATUS_SUCCESS));
    std::vector<float> output(static_cast<size_t>(ggml_nelements(c.output)));
    ggml_backend_tensor_get(c.output, output.data(), 0, output.size() * sizeof(float));
    double worst = 0;
    for (int64_t stream = 0; stream < shape.streams; ++stream) {
        for (int64_t position = 0; position < shape.positions; ++position) {
            for (int64_t head = 0; head < shape.heads; ++head) {
                const auto    right = expected(c, values, sees, stream, position, head);
                const float * ours =
                    output.data() + ((stream * shape.positions + position) * shape.heads + head) * shape.head_size;
                for (int64_t i = 0; i < shape.head_size; ++i) {
                    worst = std::max(worst, std::fabs(static_cast<double>(ours[i]) - right[static_cast<size_t>(i)]));
                }
            }
        }
    }
    // Single precision: the error of a weight is that of its score.
    CHECK(worst < 2e-5 * static_cast<double>(spread));
}

bool have_kernel() {
    start_llama();
    return attention_kernel() != nullptr;
}

TEST(attention_of_single_positions_agrees_with_a_plain_computation) {
    if (!have_kernel()) {
        return;
    }
    for (const int threads : {1, 2, 3}) {
        check({64, 9, 3, 1, 256, 16}, causal, threads);
        check({64, 9, 3, 1, 2048, 1}, causal, threads);  // cells in pieces
        check({128, 4, 4, 1, 65, 2}, causal, threads);
        check({128, 14, 2, 1, 1000, 1}, scattered, threads);
        check({256, 6, 1, 1, 300, 1}, causal, threads);
    }
}

TEST(attention_of_prompts_agrees_with_a_plain_computation) {
    if (!have_kernel()) {
        return;
    }
    for (const int threads : {1, 2}) {
        check({64, 9, 3, 130, 256, 1}, causal, threads);
        check({64, 9, 3, 17, 64, 2}, causal, threads);
        check({128, 4, 4, 50, 200, 1}, scattered, threads);
        check({64, 40, 1, 3, 77, 2}, scattered, threads);
        for (const int64_t head_size : {16, 32, 48, 80, 96, 112}) {
            check({head_size, 4, 2, 1, 130, 1}, causal, threads);
            check({head_size, 4, 2, 20, 130, 1}, causal, threads);
        }
    }
}

TEST(attention_of_positions_that_see_nothing_is_zero) {
    if (have_kernel()) {
        check({64, 3, 3, 4, 512, 1}, nothing_for_some, 2);
        check({64, 3, 1, 40, 512, 1}, nothing_for_some, 2);
    }
}

// Output of the positions [first, first + n) of a prompt of `shape.positions`, bit by bit what all of them together give.
std::vector<float> computed(const Shape & shape, int64_t first, int64_t n, int threads) {
    std::mt19937 random(11);
    Shape        part = shape;
    part.positions    = n;
    Case         whole(shape), c(part);
    const auto   q = fill_float(whole.q, random, 1);
    fill_half(c.k, random);
    fill_half(c.v, random);
    const size_t row = static_cast<size_t>(shape.heads * shape.head_size);
    ggml_backend_tensor_set(c.q, q.data() + static_cast<size_t>(first) * row, 0, static_cast<size_t>(n) * row * sizeof(float));
    std::vector<ggml_fp16_t> mask;
    for (int64_t position = first; position < first + n; ++position) {
        for (int64_t cell = 0; cell < shape.cells; ++cell) {
            mask.push_back(ggml_fp32_to_fp16(causal(shape, 0, position, cell) ? 0 : -std::numeric_limits<float>::infinity()));
        }
    }
    ggml_backend_tensor_set(c.mask, mask.data(), 0, mask.size() * sizeof(ggml_fp16_t));
    testing::compute(c.graph, threads);
    std::vector<float> output(static_cast<size_t>(ggml_nelements(c.output)));
    ggml_backend_tensor_get(c.output, output.data(), 0, output.size() * sizeof(float));
    return output;
}

TEST(attention_of_a_position_does_not_depend_on_its_neighbours) {
    if (!have_kernel()) {
        return;
    }
    for (const int64_t head_size : {64, 80, 128}) {
        const Shape shape{head_size, 9, 3, 70, 1300, 1};
        const auto  together = computed(shape, 0, shape.positions, 2);
        for (const auto & [first, n] : {std::pair<int64_t, int64_t>{69, 1}, {0, 2}, {30, 5}, {13, 40}}) {
            const auto apart  = computed(shape, first, n, 1 + static_cast<int>(n % 3));
            const auto offset = static_cast<std::ptrdiff_t>(first * shape.heads * head_size);
            CHECK(std::equal(apart.begin(), apart.end(), together.begin() + offset));
        }
    }
}

TEST(attention_stands_large_scores) {
    if (have_kernel()) {
        check({64, 9, 3, 1, 512, 2}, causal, 2, 300);
        check({64, 9, 3, 64, 512, 1}, causal, 2, 300);
    }
}

TEST(attention_of_other_kinds_is_left_to_ggml) {
    if (!have_kernel()) {
        return;
    }
    Case c({64, 4, 4, 1, 64, 1});
    CHECK(takes_attention(c.output));
    const float soft_cap = 30;
    std::memcpy(reinterpret_cast<char *>(c.output->op_params) + 8, &soft_cap, sizeof soft_cap);
    CHECK(!takes_attention(c.output));
    CHECK(!takes_attention(Case({72, 4, 4, 1, 64, 1}).output));
    CHECK(!takes_attention(Case({512, 4, 4, 1, 64, 1}).output));
}

}  // namespace
}  // namespace inferno::kernels
