#include "attention_op.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <ggml-cpu-impl.h>

#include "attention.h"
#include "cpu_backend.h"
#include "tensor_row.h"

namespace inferno::kernels {

namespace {

// Cells are attended to in pieces of this many, which are then put together: by one thread when there are enough tiles to
// keep all busy, else by several. The pieces are always the same, so that the result is.
constexpr int64_t kPieceCells = 512;

struct Parameters {
    float scale;
    float max_bias;
    float soft_cap;
};

Parameters parameters_of(const ggml_tensor * op) {
    Parameters result;
    std::memcpy(&result, op->op_params, sizeof result);
    return result;
}

// How an operation is divided: tiles of queries, and pieces of the cells that each attends to.
class Division {
public:
    Division(const ggml_tensor * op, int64_t n_threads)
        : heads(op->src[0]->ne[2] / op->src[1]->ne[2]), key_heads(op->src[1]->ne[2]), positions(op->src[0]->ne[1]),
          streams(op->src[0]->ne[3]), cells(op->src[1]->ne[1]), head_size(op->src[0]->ne[0]),
          tile_positions(std::max<int64_t>(1, std::min(positions, kMaxQueryRows / heads))),
          tiles_of_head((positions + tile_positions - 1) / tile_positions),
          n_pieces((cells + kPieceCells - 1) / kPieceCells), pieces_apart(n_pieces > 1 && n_tiles() < 4 * n_threads) {}

    int64_t n_tiles() const { return streams * key_heads * tiles_of_head; }
    size_t  result_floats() const { return static_cast<size_t>(tile_positions * heads * (2 + head_size)); }

    const int64_t heads;  // of queries, for each key head
    const int64_t key_heads;
    const int64_t positions;
    const int64_t streams;
    const int64_t cells;
    const int64_t head_size;
    const int64_t tile_positions;
    const int64_t tiles_of_head;
    const int64_t n_pieces;
    const bool    pieces_apart;  // each piece is an item of work
};

class Attention {
public:
    Attention(const ggml_compute_params * params, ggml_tensor * op)
        : params_(params), op_(op), division_(op, params->nth) {}

    static size_t work_bytes(int n_threads, const ggml_tensor * op) {
        const Division division(op, n_threads);
        const size_t   buffers = static_cast<size_t>(division.pieces_apart ? division.n_tiles() * division.n_pieces
                                                                           : int64_t{2} * n_threads);
        return (static_cast<size_t>(n_threads) * scratch_floats(division.head_size) +
                buffers * division.result_floats()) * sizeof(float);
    }

    void compute() {
        if (params_->ith == 0) {
            cpu_backend->chunk_set(params_->threadpool, 0);
        }
        cpu_backend->barrier(params_->threadpool);
        if (!division_.pieces_apart) {
            return for_each_of(division_.n_tiles(), [&](int64_t tile) { attend(tile); });
        }
        for_each_of(division_.n_tiles() * division_.n_pieces, [&](int64_t item) {
            attend(item / division_.n_pieces, item % division_.n_pieces, result(item));
        });
        cpu_backend->barrier(params_->threadpool);
        for (int64_t tile = params_->ith; tile < division_.n_tiles(); tile += params_->nth) {
            merge(tile);
        }
    }

private:
    template <class Work>
    void for_each_of(int64_t n, Work work) const {
        for (;;) {
            const int64_t item = cpu_backend->chunk_add(params_->threadpool, 1);
            if (item >= n) {
                return;
            }
            work(item);
        }
    }

    struct Place {
        int64_t stream, key_head, position;
    };

    // The last positions first: they see most, and threads end together when the last tiles are short.
    Place place_of(int64_t tile) const {
        const int64_t n_heads = division_.streams * division_.key_heads;
        const int64_t head    = tile % n_heads;
        return {head / division_.key_heads, head % division_.key_heads,
                (division_.tiles_of_head - 1 - tile / n_heads) * division_.tile_positions};
    }

    Queries queries_of(const Place & place) const {
        const ggml_tensor * q = op_->src[0];
        return {row_of(q, place.position, place.key_head * division_.heads, place.stream),
                q->nb[1],
                q->nb[2],
                std::min(division_.tile_positions, division_.positions - place.position),
                division_.heads,
                division_.head_size,
                parameters_of(op_).scale};
    }

    Cells cells_of(const Place & place, int64_t piece) const {
        const ggml_tensor * k = op_->src[1];
        const ggml_tensor * v = op_->src[2];
        const ggml_tensor * m = op_->src[3];
        const int64_t stream  = place.stream / (division_.streams / k->ne[3]);
        const int64_t begin   = piece * kPieceCells;
        return {row_of(k, 0, place.key_head, stream),
                row_of(v, 0, place.key_head, stream),
                k->nb[1],
                v->nb[1],
                m == nullptr ? nullptr : row_of(m, place.position, 0, place.stream % m->ne[3]),
                m == nullptr ? 0 : m->nb[1],
                begin,
                std::min(begin + kPieceCells, division_.cells)};
    }

    float * scratch(int64_t thread) const {
        return static_cast<float *>(params_->wdata) + static_cast<size_t>(thread) * scratch_floats(division_.head_size);
    }

    Attended result(int64_t buffer) const {
        float *       base = scratch(params_->nth) + static_cast<size_t>(buffer) * division_.result_floats();
        const int64_t rows = division_.tile_positions * division_.heads;
        return {base, base + rows, base + 2 * rows};
    }

    void attend(int64_t tile, int64_t piece, const Attended & part) const {
        const Place place = place_of(tile);
        attention_kernel()->attend(queries_of(place), cells_of(place, piece), part, scratch(params_->ith));
    }

    // All pieces, one after another.
    void attend(int64_t tile) const {
        const Place    place   = place_of(tile);
        const Queries  queries = queries_of(place);
        const Attended all     = result(2 * params_->ith);
        const Attended part    = result(2 * params_->ith + 1);
        attend(tile, 0, all);
        for (int64_t piece = 1; piece < division_.n_pieces; ++piece) {
            attend(tile, piece, part);
            add(all, part, queries.rows());
        }
        write(place, queries, all);
    }

    void merge(int64_t tile) const {
        const Place    place   = place_of(tile);
        const Queries  queries = queries_of(place);
        const Attended all     = result(tile * division_.n_pieces);
        for (int64_t piece = 1; piece < division_.n_pieces; ++piece) {
            add(all, result(tile * division_.n_pieces + piece), queries.rows());
        }
        write(place, queries, all);
    }

    void add(const Attended & all, const Attended & part, int64_t rows) const {
        for (int64_t row = 0; row < rows; ++row) {
            add_row(all, part, row);
        }
    }

    void add_row(const Attended & all, const Attended & part, int64_t row) const {
        if (part.maxima[row] == -std::numeric_limits<float>::infinity()) {
            return;
        }
        const float   maximum = std::max(all.maxima[row], part.maxima[row]);
        const float   before  = std::exp(all.maxima[row] - maximum);
        const float   added   = std::exp(part.maxima[row] - maximum);
        const int64_t size    = division_.head_size;
        all.maxima[row]       = maximum;
        all.sums[row]         = all.sums[row] * before + part.sums[row] * added;
        for (int64_t i = row * size; i < (row + 1) * size; ++i) {
            all.values[i] = all.values[i] * before + part.values[i] * added;
        }
    }

    void write(const Place & place, const Queries & queries, const Attended & attended) const {
        for (int64_t row = 0; row < queries.rows(); ++row) {
            const int64_t head     = place.key_head * queries.heads + row % queries.heads;
            const int64_t position = place.position + row / queries.heads;
            auto *        output   = reinterpret_cast<float *>(row_of(op_, head, position, place.stream));
            const float   scale    = attended.sums[row] == 0 ? 0 : 1 / attended.sums[row];
            for (int64_t i = 0; i < queries.head_size; ++i) {
                output[i] = attended.values[row * queries.head_size + i] * scale;
            }
        }
    }

    const ggml_compute_params * params_;
    ggml_tensor *               op_;
    const Division              division_;
};

}  // namespace

bool takes_attention(const ggml_tensor * op) {
    if (op->op != GGML_OP_FLASH_ATTN_EXT || attention_kernel() == nullptr) {
        return false;
    }
    const ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *mask = op->src[3], *sinks = op->src[4];
    const Parameters   parameters = parameters_of(op);
    const bool         plain      = parameters.max_bias == 0 && parameters.soft_cap == 0 && sinks == nullptr;
    const bool types = q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 &&
                       (mask == nullptr || mask->type == GGML_TYPE_F16);
    const bool packed = q->nb[0] == 4 && k->nb[0] == 2 && v->nb[0] == 2 && (mask == nullptr || mask->nb[0] == 2);
    const bool sizes  = k->ne[0] == v->ne[0] && k->ne[0] % kHeadSizeStep == 0 && k->ne[0] <= kMaxHeadSize &&
                        k->ne[2] == v->ne[2] && k->ne[3] == v->ne[3] && q->ne[2] % k->ne[2] == 0 &&
                        q->ne[2] / k->ne[2] <= kMaxQueryRows && q->ne[3] % k->ne[3] == 0 &&
                        (mask == nullptr || mask->ne[2] == 1);
    return plain && types && packed && sizes;
}

size_t attention_work_bytes(int n_threads, const ggml_tensor * op) {
    return Attention::work_bytes(n_threads, op);
}

void compute_attention(const ggml_compute_params * params, ggml_tensor * op) {
    Attention(params, op).compute();
}

}  // namespace inferno::kernels
