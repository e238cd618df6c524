#include "weights_buffer.h"

#include <algorithm>

#if defined(__linux__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

#include <ggml-backend-impl.h>
#include <ggml-cpu-impl.h>
#include <traits.h>

#include "attention_op.h"
#include "cpu_backend.h"
#include "gelu.h"
#include "matmul.h"
#include "rms_norm.h"
#include "tensor_row.h"

namespace inferno::kernels {

namespace {

// Activation rows that are quantized by every thread for itself: dearer than meeting at a barrier for more.
constexpr int64_t kPrivateRows = 4;
// Quantized activations of one pass over the weights; they stay in a core's second-level cache.
constexpr size_t kPassBytes = 384 * 1024;

const Packing * packing_of(const ggml_tensor * weights) {
    const Packing * packing = packing_of_type(weights->type);
    const bool      usable  = packing != nullptr && weights->ne[2] == 1 && weights->ne[3] == 1 &&
                        weights->ne[0] % packing->format.activation_block() == 0 && best_kernels() != nullptr &&
                        best_kernels()->supports(packing->format);
    return usable ? packing : nullptr;
}

// Activation rows, split evenly into as few tiles as hold them.
struct Tiling {
    explicit Tiling(int64_t n_rows) : rows(n_rows), tiles((n_rows + kMaxTileRows - 1) / kMaxTileRows) {}

    int64_t first_row(int64_t tile) const { return tile * (rows / tiles) + std::min(tile, rows % tiles); }
    int     n_rows(int64_t tile) const { return static_cast<int>(first_row(tile + 1) - first_row(tile)); }

    int64_t rows;
    int64_t tiles;
};

// Panels and tiles to be multiplied with each other, up to the last of each and without it.
struct Item {
    int64_t first_panel, last_panel, first_tile, last_tile;
};

// What threads take from a product, one after another: chunks of panels, and of the last chunks quarters of the tiles, so
// that threads end together though another program takes time from one of them.
class Items {
public:
    Items(int64_t n_panels, int64_t n_tiles, int64_t n_threads)
        : n_panels_(n_panels), n_tiles_(n_tiles),
          chunk_(std::max<int64_t>(1, n_panels / (8 * n_threads) / kPanelsAtOnce) * kPanelsAtOnce),
          n_chunks_((n_panels + chunk_ - 1) / chunk_), n_parts_(std::min<int64_t>(4, n_tiles)),
          n_whole_(std::max<int64_t>(0, n_chunks_ - 2 * n_threads)) {}

    int64_t n() const { return n_whole_ + (n_chunks_ - n_whole_) * n_parts_; }

    Item operator[](int64_t i) const {
        const bool    whole = i < n_whole_;
        const int64_t chunk = whole ? i : n_whole_ + (i - n_whole_) / n_parts_;
        const int64_t part  = (i - n_whole_) % n_parts_;
        return {chunk * chunk_, std::min((chunk + 1) * chunk_, n_panels_), whole ? 0 : n_tiles_ * part / n_parts_,
                whole ? n_tiles_ : n_tiles_ * (part + 1) / n_parts_};
    }

private:
    const int64_t n_panels_;
    const int64_t n_tiles_;
    const int64_t chunk_;  // panels
    const int64_t n_chunks_;
    const int64_t n_parts_;  // of the tiles, for chunks from n_whole_ on
    const int64_t n_whole_;
};

// One MUL_MAT: output = weights x activations, all threads together.
class Product {
public:
    Product(const ggml_compute_params * params, ggml_tensor * op)
        : params_(params), weights_(op->src[0]), activations_(op->src[1]), output_(op), packing_(*packing_of(weights_)),
          tiling_(ggml_nrows(activations_)) {}

    static size_t work_bytes(int n_threads, const ggml_tensor * op) {
        const int64_t rows = ggml_nrows(op->src[1]);
        return tile_bytes(packing_of(op->src[0])->format, rows, op->src[0]->ne[0]) * (rows <= kPrivateRows ? static_cast<size_t>(n_threads) : 1);
    }

    void compute() {
        const bool alone = tiling_.rows <= kPrivateRows;
        uint8_t *  tiles = static_cast<uint8_t *>(params_->wdata);
        if (alone) {
            tiles += static_cast<size_t>(params_->ith) * tile_bytes(packing_.format, tiling_.rows, columns());
            quantize(tiles, 0, tiling_.tiles);
            return multiply(tiles, {share(n_panels(), params_->ith), share(n_panels(), params_->ith + 1), 0, tiling_.tiles});
        }
        if (params_->ith == 0) {
            cpu_backend->chunk_set(params_->threadpool, 0);
        }
        quantize(tiles, share(tiling_.tiles, params_->ith), share(tiling_.tiles, params_->ith + 1));
        cpu_backend->barrier(params_->threadpool);
        const Items items(n_panels(), tiling_.tiles, params_->nth);
        for (;;) {
            const int64_t item = cpu_backend->chunk_add(params_->threadpool, 1);
            if (item >= items.n()) {
                break;
            }
            multiply(tiles, items[item]);
        }
    }

private:
    int64_t columns() const { return weights_->ne[0]; }
    int64_t n_panels() const { return (weights_->ne[1] + kPanelRows - 1) / kPanelRows; }
    int64_t share(int64_t n, int64_t thread) const { return n * thread / params_->nth; }

    uint8_t * tile_at(uint8_t * tiles, int64_t tile) const {
        return tiles + tile_bytes(packing_.format, tiling_.first_row(tile), columns());
    }

    void quantize(uint8_t * tiles, int64_t begin, int64_t end) const {
        for (int64_t tile = begin; tile < end; ++tile) {
            const float * rows[kMaxTileRows];
            const int     n_rows = tiling_.n_rows(tile);
            for (int r = 0; r < n_rows; ++r) {
                rows[r] = reinterpret_cast<const float *>(row_of(activations_, tiling_.first_row(tile) + r));
            }
            best_kernels()->quantize(packing_.format, rows, n_rows, columns(), tile_at(tiles, tile));
        }
    }

    // As many tiles at a time as the cache holds.
    void multiply(uint8_t * tiles, const Item & item) const {
        const size_t  bytes   = tile_bytes(packing_.format, kMaxTileRows, columns());
        const int64_t at_once = std::max<int64_t>(1, static_cast<int64_t>(kPassBytes / bytes));
        for (int64_t first = item.first_tile; first < item.last_tile; first += at_once) {
            const int64_t last = std::min(first + at_once, item.last_tile);
            for (int64_t panel = item.first_panel; panel < item.last_panel; panel += kPanelsAtOnce) {
                const int64_t end = std::min(panel + kPanelsAtOnce, item.last_panel);
                for (int64_t tile = first; tile < last; ++tile) {
                    multiply(panel, end, tile_at(tiles, tile), tile, tile == first);
                }
            }
        }
    }

    void multiply(int64_t begin, int64_t end, const uint8_t * tile_data, int64_t tile, bool prefetch) const {
        const auto *    data   = static_cast<const uint8_t *>(weights_->data);
        const uint8_t * panels = data + static_cast<size_t>(begin) * packing_.format.panel_bytes(columns());
        const int64_t   first  = begin * kPanelRows;
        // ggml has made the output: contiguous.
        const int64_t stride = weights_->ne[1];
        float *       output = static_cast<float *>(output_->data) + tiling_.first_row(tile) * stride + first;
        best_kernels()->multiply(packing_.format, panels, tile_data, tiling_.n_rows(tile), columns(), output, stride,
                                 static_cast<int>(std::min(end * kPanelRows, weights_->ne[1]) - first), prefetch);
    }

    const ggml_compute_params * params_;
    const ggml_tensor *         weights_;
    const ggml_tensor *         activations_;
    ggml_tensor *               output_;
    const Packing &             packing_;
    const Tiling                tiling_;
};

thread_local bool in_use  = true;
thread_local bool locking = false;

// Whether an operation without weights is ours is decided where its graph is planned, in the thread that asked for it, and
// noted on it: all threads that compute it must do so the same way, in the memory that was planned.
bool plan(const ggml_tensor * op) {
    static int ours;
    const_cast<ggml_tensor *>(op)->extra = in_use ? &ours : nullptr;
    return in_use;
}

bool planned(const ggml_tensor * op) {
    return op->extra != nullptr;
}

class Products : public ggml::cpu::tensor_traits {
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        size = Product::work_bytes(n_threads, op);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        Product(params, op).compute();
        return true;
    }
};

// Rows of the token embeddings, which many models share with their output: packed once, they serve both.
class Lookup : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor *, size_t & size) override {
        size = 0;
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * ids     = op->src[1];
        for (int64_t i = params->ith; i < ggml_nelements(ids); i += params->nth) {
            const auto row = static_cast<const int32_t *>(ids->data)[i];
            GGML_ASSERT(row >= 0 && row < weights->ne[1]);
            unpack_row(packing_of(weights)->format, static_cast<const uint8_t *>(weights->data), row, weights->ne[0],
                       static_cast<float *>(op->data) + i * weights->ne[0]);
        }
        return true;
    }
};

class Attention : public ggml::cpu::tensor_traits {
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        size = plan(op) ? attention_work_bytes(n_threads, op) : 0;
        return planned(op);
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        if (planned(op)) {
            compute_attention(params, op);
        }
        return planned(op);
    }
};

class Gelu : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        size = 0;
        return plan(op);
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        if (planned(op)) {
            compute_gelu(params, op);
        }
        return planned(op);
    }
};

// Planned here only: see register_rms_norm().
class RmsNorm : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor * op, size_t &) override {
        plan(op);
        return false;
    }

    bool compute_forward(ggml_compute_params *, ggml_tensor *) override { return false; }
};

class BufferType : public ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        // The loader asks with a tensor that has no memory yet.
        const ggml_tensor * weights = op->src[0];
        const bool          wanted  = weights->data != nullptr || in_use;
        return wanted && holds(weights) && packing_of(weights) != nullptr && (multiplies(op) || looks_up(op));
    }

    static bool multiplies(const ggml_tensor * op) {
        return op->op == GGML_OP_MUL_MAT && op->src[1]->type == GGML_TYPE_F32 && op->src[1]->nb[0] == sizeof(float) &&
               (op->src[1]->buffer == nullptr || ggml_backend_buft_is_host(op->src[1]->buffer->buft)) &&
               ggml_is_contiguous(op);
    }

    static bool looks_up(const ggml_tensor * op) {
        return op->op == GGML_OP_GET_ROWS && op->src[1]->type == GGML_TYPE_I32 && ggml_is_contiguous(op->src[1]) &&
               ggml_is_contiguous(op);
    }

    // ggml asks this for every operation, so that those without weights can be taken here too.
    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        if ((op->op == GGML_OP_MUL_MAT || op->op == GGML_OP_GET_ROWS) && holds(op->src[0])) {
            return op->op == GGML_OP_MUL_MAT ? static_cast<ggml::cpu::tensor_traits *>(&products_) : &lookup_;
        }
        if (takes_attention(op)) {
            return &attention_;
        }
        if (op->op == GGML_OP_RMS_NORM) {
            return &rms_norm_;
        }
        return takes_gelu(op) ? &gelu_ : nullptr;
    }

    static bool holds(const ggml_tensor * tensor) {
        return tensor->buffer != nullptr && tensor->buffer->buft == weights_buffer_type();
    }

    Products  products_;
    Lookup    lookup_;
    Attention attention_;
    Gelu      gelu_;
    RmsNorm   rms_norm_;
};

ggml_status init_tensor(ggml_backend_buffer_t, ggml_tensor *) {
    return GGML_STATUS_SUCCESS;
}

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor));
    packing_of(tensor)->pack(data, tensor->ne[1], tensor->ne[0], static_cast<uint8_t *>(tensor->data));
}

// Every pass over the weights reads all of them: fewer, larger pages are fewer misses of the address cache. A hint; the
// memory is as good without.
void ask_for_large_pages(void * memory, size_t size) {
#ifdef __linux__
    constexpr uintptr_t kLargePage = uintptr_t{2} << 20;
    const auto          begin      = (reinterpret_cast<uintptr_t>(memory) + kLargePage - 1) / kLargePage * kLargePage;
    const auto          end        = (reinterpret_cast<uintptr_t>(memory) + size) / kLargePage * kLargePage;
    if (begin < end) {
        (void) madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
    }
#else
    (void) memory;
    (void) size;
#endif
}

bool lock_if_wanted(const void * memory, size_t size) {
#if defined(__linux__) || defined(__APPLE__)
    return !locking || size == 0 || mlock(memory, size) == 0;
#else
    (void) memory;
    (void) size;
    return !locking;
#endif
}

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer == nullptr) {
        return nullptr;
    }
    ask_for_large_pages(ggml_backend_buffer_get_base(buffer), size);
    if (!lock_if_wanted(ggml_backend_buffer_get_base(buffer), size)) {
        ggml_backend_buffer_free(buffer);
        return nullptr;
    }
    buffer->buft              = type;
    buffer->iface.init_tensor = init_tensor;
    buffer->iface.set_tensor  = set_tensor;
    buffer->iface.get_tensor  = nullptr;
    buffer->iface.cpy_tensor  = nullptr;
    return buffer;
}

size_t allocated_bytes(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    const Packing * packing = packing_of(tensor);
    return packing != nullptr ? packing->format.bytes(tensor->ne[1], tensor->ne[0]) : ggml_nbytes(tensor);
}

const char * name(ggml_backend_buffer_type_t) {
    return "CPU_INFERNO";
}

size_t alignment(ggml_backend_buffer_type_t) {
    return 64;
}

}  // namespace

const InfernoCpuInternals * cpu_backend = nullptr;

ggml_backend_buffer_type_t weights_buffer_type() {
    static BufferType               operations;
    static ggml_backend_buffer_type type = {
        {name, allocate, alignment, /*get_max_size=*/nullptr, allocated_bytes, /*is_host=*/nullptr},
        ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU),
        &operations,
    };
    return best_kernels() != nullptr ? &type : nullptr;
}

void lock_weights(bool lock) {
    locking = lock;
}

void use_kernels(bool use) {
    in_use = use;
}

void register_rms_norm() {
    cpu_backend->set_rms_norm([](const ggml_compute_params * params, const ggml_tensor * norm, ggml_tensor * product) {
        return planned(norm) && compute_rms_norm(params, norm, product);
    });
}

void register_weights_buffer_type(const InfernoCpuInternals & cpu) {
    cpu_backend = &cpu;
    if (weights_buffer_type() != nullptr) {
        cpu.add_extra_buffer_type(weights_buffer_type());
        register_rms_norm();
    }
}

}  // namespace inferno::kernels
