#include "kv_state.h"

#include <llama-impl.h>
#include <llama-io.h>
#include <llama-kv-cache-iswa.h>
#include <llama-kv-cache.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <stdexcept>

namespace inferno {

namespace {

// Takes what llama.cpp writes about a slot: its numbers as bytes, its tensors by reference.
class StateWriter : public llama_io_write_i {
public:
    struct Part {
        ggml_tensor * tensor;
        size_t        offset;
        size_t        size;
    };

    void write(const void * source, size_t size) override {
        const auto * bytes = static_cast<const uint8_t *>(source);
        numbers.insert(numbers.end(), bytes, bytes + size);
    }
    void   write_tensor(ggml_tensor * tensor, size_t offset, size_t size) override { parts.push_back({tensor, offset, size}); }
    size_t n_bytes() override { return numbers.size(); }

    std::vector<uint8_t> numbers;
    std::vector<Part>    parts;
};

// Gives llama.cpp the numbers, and has `fill` write each run of rows.
class StateReader : public llama_io_read_i {
public:
    using Fill = std::function<void(ggml_tensor * tensor, size_t offset, size_t size)>;

    StateReader(std::vector<uint8_t> numbers, Fill fill) : numbers_(std::move(numbers)), fill_(std::move(fill)) {}

    void read(void * target, size_t size) override {
        if (size > numbers_.size() - at_) {
            throw std::runtime_error("the state ends too soon");
        }
        std::memcpy(target, numbers_.data() + at_, size);
        at_ += size;
    }
    void   read_tensor(ggml_tensor * tensor, size_t offset, size_t size) override { fill_(tensor, offset, size); }
    size_t n_bytes() override { return at_; }

private:
    std::vector<uint8_t> numbers_;
    size_t               at_ = 0;
    Fill                 fill_;
};

void append(std::vector<uint8_t> & bytes, const std::vector<int32_t> & numbers) {
    const auto * first = reinterpret_cast<const uint8_t *>(numbers.data());
    bytes.insert(bytes.end(), first, first + numbers.size() * sizeof(int32_t));
}

// llama.cpp throws when what it reads does not fit.
template <class Receive>
bool received(Receive receive) {
    try {
        receive();
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

constexpr Position kSample = 3;  // tokens of the slot that the layout is learned from

// In as many steps as a context of small batches needs.
bool compute_sample(llama_context * context) {
    std::vector<llama_token> tokens(kSample, 0);
    const Position           most = std::min(kSample, static_cast<Position>(llama_n_batch(context)));
    for (Position done = 0; done < kSample; done += most) {
        if (llama_decode(context, llama_batch_get_one(tokens.data(), std::min(most, kSample - done))) != 0) {
            return false;
        }
    }
    return true;
}

}  // namespace

// One llama_kv_cache: tensors of (row, token, stream), and the numbers that go with a slot's rows.
class KvState::Cache {
public:
    // Null when the cache does not write a slot of kSample tokens as rows. REQUIRES: slot 0 is such a slot.
    static std::unique_ptr<Cache> learn(llama_kv_cache * cache) {
        StateWriter written;
        if (cache->has_cell_ext()) {
            return nullptr;
        }
        cache->state_write(written, 0, 0);
        auto result = std::unique_ptr<Cache>(new Cache(cache));
        return result->take_numbers(written.numbers) && result->take_tensors(written.parts) ? std::move(result) : nullptr;
    }

    size_t token_bytes() const { return token_bytes_; }

    bool in_rows(Slot slot, Position n) const {
        const llama_kv_cells & cells = cache_->get_cells(slot);
        for (Position i = 0; i < n; ++i) {
            const auto cell = static_cast<uint32_t>(i);
            if (cells.is_empty(cell) || cells.pos_get(cell) != i) {
                return false;
            }
        }
        return true;
    }

    // Rows [0, n) of `source` become the content of `target`.
    void copy(Slot source, Slot target, Position n) const {
        receive(target, n, [&](const Rows & rows, ggml_tensor * tensor, size_t offset, size_t size) {
            const size_t from = rows.offset(source, 0);
            if (ggml_backend_buffer_is_host(rows.tensor->buffer)) {
                ggml_backend_tensor_set(tensor, static_cast<const uint8_t *>(rows.tensor->data) + from, offset, size);
            } else {
                std::vector<uint8_t> bytes(size);
                ggml_backend_tensor_get(rows.tensor, bytes.data(), from, size);
                ggml_backend_tensor_set(tensor, bytes.data(), offset, size);
            }
        });
    }

    // Tokens [from, from + n) of a slot to `bytes`, tensor after tensor.
    void get(Slot slot, Position from, Position n, uint8_t * bytes) const {
        for (const Rows & rows : rows_) {
            const size_t size = rows.size * static_cast<size_t>(n);
            ggml_backend_tensor_get(rows.tensor, bytes, rows.offset(slot, from), size);
            bytes += size;
        }
    }

    // What get() has written, one after the other, becomes the content of `slot`. `skip` is what a token has in them
    // before its rows of this cache.
    void set(Slot slot, const std::vector<const SavedState *> & states, size_t skip) const {
        Position n = 0;
        for (const SavedState * state : states) {
            n += state->n_rows;
        }
        receive(slot, n, [&](const Rows & rows, ggml_tensor * tensor, size_t offset, size_t) {
            for (const SavedState * state : states) {
                const auto   n_rows = static_cast<size_t>(state->n_rows);
                const size_t size   = rows.size * n_rows;
                ggml_backend_tensor_set(tensor, state->bytes.get() + skip * n_rows, offset, size);
                offset += size;
            }
            skip += rows.size;
        });
    }

    // The first `n` rows of two slots, without their cells.
    void exchange(Slot a, Slot b, Position n) const {
        std::vector<uint8_t> first;
        std::vector<uint8_t> second;
        for (const Rows & rows : rows_) {
            first.resize(rows.size * static_cast<size_t>(n));
            second.resize(first.size());
            ggml_backend_tensor_get(rows.tensor, first.data(), rows.offset(a, 0), first.size());
            ggml_backend_tensor_get(rows.tensor, second.data(), rows.offset(b, 0), second.size());
            ggml_backend_tensor_set(rows.tensor, second.data(), rows.offset(a, 0), second.size());
            ggml_backend_tensor_set(rows.tensor, first.data(), rows.offset(b, 0), first.size());
        }
    }

    // The cells of `n` rows that are there.
    void adopt(Slot slot, Position n) const {
        receive(slot, n, [](const Rows &, ggml_tensor *, size_t, size_t) {});
    }

private:
    struct Rows {
        ggml_tensor * tensor;
        size_t        size;  // of one row

        size_t offset(Slot slot, Position token) const {
            return static_cast<size_t>(slot) * tensor->nb[2] + static_cast<size_t>(token) * size;
        }
    };

    explicit Cache(llama_kv_cache * cache) : cache_(cache) {}

    // The number of streams; the number of cells; position, number of sequences and sequence of each; the rest.
    bool take_numbers(const std::vector<uint8_t> & numbers) {
        std::vector<uint8_t> expected;
        append(expected, {static_cast<int32_t>(cache_->get_n_stream()), kSample});
        for (Position i = 0; i < kSample; ++i) {
            append(expected, {i, 1, 0});
        }
        if (numbers.size() < expected.size() || !std::equal(expected.begin(), expected.end(), numbers.begin())) {
            return false;
        }
        rest_.assign(numbers.begin() + static_cast<std::ptrdiff_t>(expected.size()), numbers.end());
        return true;
    }

    bool take_tensors(const std::vector<StateWriter::Part> & parts) {
        for (const StateWriter::Part & part : parts) {
            ggml_tensor * tensor = part.tensor->view_src;
            const size_t  size   = part.size / kSample;
            if (tensor == nullptr || part.offset != 0 || part.tensor->view_offs != 0 || size != tensor->nb[1] ||
                tensor->ne[2] != static_cast<int64_t>(cache_->get_n_stream())) {
                return false;  // values are columns where flash attention is off
            }
            rows_.push_back({tensor, size});
            token_bytes_ += size;
        }
        return true;
    }

    // Has llama.cpp empty the slot, give it `n` cells and ask for the rows, one tensor after the other. Throws when it
    // does not want them after all.
    template <class Fill>
    void receive(Slot slot, Position n, Fill fill) const {
        std::vector<uint8_t> numbers;
        append(numbers, {static_cast<int32_t>(cache_->get_n_stream()), n});
        for (Position i = 0; i < n; ++i) {
            append(numbers, {i, 1, slot});
        }
        numbers.insert(numbers.end(), rest_.begin(), rest_.end());
        size_t      next = 0;
        StateReader reader(std::move(numbers), [&](ggml_tensor * tensor, size_t offset, size_t size) {
            const Rows & rows = rows_.at(next++);
            if (tensor->view_src != rows.tensor || size != rows.size * static_cast<size_t>(n)) {
                throw std::runtime_error("a slot's cells are not in one piece");
            }
            fill(rows, tensor, offset, size);
        });
        cache_->state_read(reader, slot, 0);
    }

    llama_kv_cache *     cache_;
    std::vector<uint8_t> rest_;  // what follows the cells
    std::vector<Rows>    rows_;
    size_t               token_bytes_ = 0;
};

KvState::KvState(llama_context * context, bool by_rows) : context_(context) {
    if (!by_rows || !compute_sample(context_) || !learn()) {
        LLAMA_LOG_INFO("%s: states of the KV cache are moved whole\n", __func__);
    } else if (!proves_itself()) {
        LLAMA_LOG_WARN("%s: rows of the KV cache are not what they seemed: states are moved whole\n", __func__);
        caches_.clear();
    }
    llama_memory_clear(llama_get_memory(context_), false);
}

KvState::~KvState() = default;

bool KvState::learn() {
    std::vector<llama_kv_cache *> found;
    llama_memory_t                memory = llama_get_memory(context_);
    if (auto * windows = dynamic_cast<llama_kv_cache_iswa *>(memory)) {
        found = {windows->get_base(), windows->get_swa()};
    } else if (auto * cache = dynamic_cast<llama_kv_cache *>(memory)) {
        found = {cache};
    }
    for (llama_kv_cache * cache : found) {
        caches_.push_back(Cache::learn(cache));
    }
    if (std::find(caches_.begin(), caches_.end(), nullptr) != caches_.end()) {
        caches_.clear();
    }
    return by_rows();
}

bool KvState::proves_itself() {
    const auto same = [&](const SavedState & expected) {
        const SavedState state = save_whole(0);
        return state.size == expected.size && std::memcmp(state.bytes.get(), expected.bytes.get(), state.size) == 0;
    };
    const SavedState whole = save_whole(0);
    if (!restore(0, save(0)) || !same(whole) || !trim(0, kSample - 1)) {
        return false;
    }
    const SavedState part  = save_whole(0);
    const Slot       other = static_cast<Slot>(llama_n_seq_max(context_)) - 1;
    return other == 0 || (restore_whole(0, whole) && copy(0, other, kSample - 1) && trim(0, 0) &&
                          copy(other, 0, kSample - 1) && same(part));
}

bool KvState::apply(const std::vector<CacheEdit> & edits) {
    llama_synchronize(context_);
    return std::all_of(edits.begin(), edits.end(), [this](const CacheEdit & edit) { return apply(edit); });
}

bool KvState::apply(const CacheEdit & edit) {
    switch (edit.kind) {
        case CacheEdit::Kind::trim:
            return trim(edit.slot, edit.from);
        case CacheEdit::Kind::copy:
            return copy(edit.source, edit.slot, edit.from);
        case CacheEdit::Kind::swap:
            return swap(edit.slot, edit.source);
        case CacheEdit::Kind::save:
            *edit.states[0] = save(edit.slot);
            return true;
        case CacheEdit::Kind::restore:
            return edit.states[0]->size > 0 && restore(edit.slot, *edit.states[0]);
        case CacheEdit::Kind::stash:
            return stash(edit);
        case CacheEdit::Kind::fetch:
            return fetch(edit.slot, edit.states);
    }
    return false;
}

bool KvState::trim(Slot slot, Position from) {
    return llama_memory_seq_rm(llama_get_memory(context_), slot, from == 0 ? -1 : from, -1);
}

Position KvState::length(Slot slot) const {
    return llama_memory_seq_pos_max(llama_get_memory(context_), slot) + 1;
}

bool KvState::in_rows(Slot slot, Position n) const {
    return by_rows() && std::all_of(caches_.begin(), caches_.end(),
                                    [&](const auto & cache) { return cache->in_rows(slot, n); });
}

bool KvState::copy(Slot source, Slot target, Position n) {
    if (n == 0) {
        return trim(target, 0);
    }
    if (!in_rows(source, n)) {
        // Only all of a slot can be copied, so what follows the wanted part is cut off again.
        return restore_whole(target, save_whole(source)) && trim(target, n);
    }
    return received([&] {
        for (const auto & cache : caches_) {
            cache->copy(source, target, n);
        }
    });
}

bool KvState::swap(Slot a, Slot b) {
    const Position n_a = length(a);
    const Position n_b = length(b);
    if (!in_rows(a, n_a) || !in_rows(b, n_b)) {
        const SavedState first  = save_whole(a);
        const SavedState second = save_whole(b);
        return restore_whole(a, second) && restore_whole(b, first);
    }
    for (const auto & cache : caches_) {
        cache->exchange(a, b, std::max(n_a, n_b));
    }
    return adopt(a, n_b) && adopt(b, n_a);
}

// The slot's first `n` rows are there; only the cells do not know it yet.
bool KvState::adopt(Slot slot, Position n) {
    return n == 0 ? trim(slot, 0) : received([&] {
        for (const auto & cache : caches_) {
            cache->adopt(slot, n);
        }
    });
}

// A batch that ends before its last pass leaves llama.cpp looking for cells where another stream ends: it puts back, of
// the streams of a pass, the heads of as many first ones. A token would then lie behind a gap, and the slot never again
// in rows. Cells that are adopted are followed by the next; shifting no cells has an empty slot begin at its first.
void KvState::find_end(Slot slot) {
    const llama_memory_t memory = llama_get_memory(context_);
    const Position       n      = length(slot);
    if (n > 0 && in_rows(slot, n)) {
        adopt(slot, n);
    } else if (n == 0 && by_rows() && llama_memory_can_shift(memory)) {
        llama_memory_seq_add(memory, slot, 0, -1, 1);
    }
}

SavedState KvState::save(Slot slot) const {
    const Position n = length(slot);
    if (n == 0 || !in_rows(slot, n)) {
        return save_whole(slot);
    }
    SavedState state;
    get_rows(slot, 0, n, state);
    return state;
}

size_t KvState::token_bytes() const {
    size_t result = 0;
    for (const auto & cache : caches_) {
        result += cache->token_bytes();
    }
    return result;
}

void KvState::get_rows(Slot slot, Position from, Position n, SavedState & state) const {
    state.n_rows = n;
    state.allocate(token_bytes() * static_cast<size_t>(n));
    uint8_t * bytes = state.bytes.get();
    for (const auto & cache : caches_) {
        cache->get(slot, from, n, bytes);
        bytes += cache->token_bytes() * static_cast<size_t>(n);
    }
}

bool KvState::restore(Slot slot, const SavedState & state) {
    return state.n_rows == 0 ? restore_whole(slot, state) : set_rows(slot, {&state});
}

bool KvState::stash(const CacheEdit & edit) const {
    const auto n = static_cast<Position>(edit.states.size()) * kBlockTokens;
    if (!in_rows(edit.slot, edit.from + n)) {
        return false;
    }
    for (size_t i = 0; i < edit.states.size(); ++i) {
        get_rows(edit.slot, edit.from + static_cast<Position>(i) * kBlockTokens, kBlockTokens, *edit.states[i]);
    }
    return true;
}

bool KvState::set_rows(Slot slot, const std::vector<const SavedState *> & states) {
    return received([&] {
        size_t offset = 0;  // in a token's rows
        for (const auto & cache : caches_) {
            cache->set(slot, states, offset);
            offset += cache->token_bytes();
        }
    });
}

bool KvState::fetch(Slot slot, const std::vector<std::shared_ptr<SavedState>> & states) {
    std::vector<const SavedState *> blocks;
    for (const auto & state : states) {
        if (state->size == 0) {
            return false;
        }
        blocks.push_back(state.get());
    }
    return set_rows(slot, blocks);
}

SavedState KvState::save_whole(Slot slot) const {
    SavedState state;
    if (length(slot) > 0) {
        state.allocate(llama_state_seq_get_size(context_, slot));
        state.size = llama_state_seq_get_data(context_, state.bytes.get(), state.size, slot);
    }
    return state;
}

bool KvState::restore_whole(Slot slot, const SavedState & state) {
    trim(slot, 0);
    return state.size == 0 || llama_state_seq_set_data(context_, state.bytes.get(), state.size, slot) > 0;
}

}  // namespace inferno
