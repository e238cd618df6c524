// Rows against whole states, on the cache of INFERNO_TEST_MODEL (a small chat model).
#include "kv_state.h"

#include <cstdio>
#include <cstdlib>

#include "llama_loading.h"
#include "test.h"

namespace inferno {
namespace {

// A context of three slots whose states are moved in one of the two ways.
class Cache {
public:
    static bool at_hand() {
        const bool there = std::getenv("INFERNO_TEST_MODEL") != nullptr;
        if (!there) {
            std::printf("not run: INFERNO_TEST_MODEL is not set\n");
        }
        return there;
    }

    explicit Cache(bool by_rows, int32_t parallel = 3, bool flash_attention = true)
        : context_(make_context(model(), params(parallel, flash_attention))), state(context_.get(), by_rows) {}

    // Computes `n` tokens more in `slot`.
    void fill(Slot slot, int32_t n, Token first) {
        BatchPointer   batch(llama_batch_ext_init(context_.get()));
        const Position held = length(slot);
        for (Position position = held; position < held + n; ++position) {
            const int32_t row = llama_batch_ext_add_token(batch.get(), slot, first + position);
            llama_batch_ext_set_pos(batch.get(), row, &position);
        }
        CHECK_EQ(llama_process(context_.get(), LLAMA_PROCESS_TYPE_DECODE, batch.get()), 0);
    }

    bool apply(CacheEdit edit) { return state.apply(std::vector<CacheEdit>{std::move(edit)}); }

    // As llama.cpp writes it.
    std::vector<uint8_t> content(Slot slot) {
        std::vector<uint8_t> bytes(llama_state_seq_get_size(context_.get(), slot));
        bytes.resize(llama_state_seq_get_data(context_.get(), bytes.data(), bytes.size(), slot));
        return bytes;
    }
    Position length(Slot slot) { return llama_memory_seq_pos_max(llama_get_memory(context_.get()), slot) + 1; }

private:
    static llama_model * model() {
        static const ModelPointer loaded = [] {
            start_llama();
            return ModelPointer(
                llama_model_load_from_file(std::getenv("INFERNO_TEST_MODEL"), llama_model_default_params()));
        }();
        return loaded.get();
    }

    static llama_context_params params(int32_t parallel, bool flash_attention) {
        EngineOptions options;
        options.context_size = 256;
        options.parallel     = parallel;
        options.threads      = 2;
        llama_context_params result = generation_params(options);
        if (!flash_attention) {
            result.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
        }
        return result;
    }

    ContextPointer context_;

public:
    KvState state;
};

// What one way leaves in the slots and what the other does.
template <class Act>
void check_same(Act act) {
    if (!Cache::at_hand()) {
        return;
    }
    Cache rows(true);
    Cache whole(false);
    CHECK(rows.state.by_rows());
    CHECK(!whole.state.by_rows());
    for (Cache * cache : {&rows, &whole}) {
        cache->fill(0, 50, 100);
        cache->fill(1, 20, 500);
        act(*cache);
    }
    for (Slot slot = 0; slot < 3; ++slot) {
        CHECK_EQ(rows.length(slot), whole.length(slot));
        CHECK(rows.content(slot) == whole.content(slot));
    }
}

TEST(rows_and_whole_states_copy_alike) {
    check_same([](Cache & cache) {
        CHECK(cache.apply({CacheEdit::Kind::copy, 2, 33, 0}));
        CHECK_EQ(cache.length(2), 33);
        CHECK(cache.apply({CacheEdit::Kind::copy, 1, 50, 0}));
    });
}

TEST(rows_and_whole_states_swap_alike) {
    check_same([](Cache & cache) {
        CHECK(cache.apply({CacheEdit::Kind::swap, 0, 0, 1}));
        CHECK(cache.apply({CacheEdit::Kind::swap, 2, 0, 0}));
        CHECK_EQ(cache.length(0), 0);
        CHECK_EQ(cache.length(1), 50);
        CHECK_EQ(cache.length(2), 20);
    });
}

TEST(rows_and_whole_states_are_saved_and_restored_alike) {
    check_same([](Cache & cache) {
        const auto state = std::make_shared<SavedState>();
        CHECK(cache.apply({CacheEdit::Kind::save, 0, 0, -1, {state}}));
        CHECK(cache.apply({CacheEdit::Kind::trim, 0, 7}));
        CHECK(cache.apply({CacheEdit::Kind::restore, 2, 0, -1, {state}}));
        CHECK_EQ(cache.length(0), 7);
        CHECK_EQ(cache.length(2), 50);
    });
}

TEST(a_slot_that_was_moved_by_rows_goes_on_growing) {
    check_same([](Cache & cache) {
        CHECK(cache.apply({CacheEdit::Kind::copy, 2, 10, 0}));
        CHECK(cache.apply({CacheEdit::Kind::swap, 2, 0, 1}));
        CHECK(cache.apply({CacheEdit::Kind::trim, 2, 5}));
        cache.fill(2, 10, 900);
        cache.fill(1, 10, 900);
        CHECK(cache.apply({CacheEdit::Kind::copy, 0, 8, 2}));
        CHECK_EQ(cache.length(2), 15);
    });
}

TEST(stashed_rows_are_fetched_as_they_were) {
    if (!Cache::at_hand()) {
        return;
    }
    Cache cache(true);
    cache.fill(0, 200, 100);
    std::vector<std::shared_ptr<SavedState>> blocks;
    for (int i = 0; i < 3; ++i) {
        blocks.push_back(std::make_shared<SavedState>());
    }
    CHECK(cache.apply({CacheEdit::Kind::stash, 0, 0, -1, {blocks[0]}}));
    CHECK(cache.apply({CacheEdit::Kind::stash, 0, kBlockTokens, -1, {blocks[1], blocks[2]}}));
    CHECK_EQ(blocks[2]->size, cache.state.token_bytes() * kBlockTokens);
    CHECK(cache.apply({CacheEdit::Kind::fetch, 1, 0, -1, blocks}));
    CHECK(cache.apply({CacheEdit::Kind::trim, 0, 3 * kBlockTokens}));
    const auto wanted = cache.content(0);
    CHECK(cache.apply({CacheEdit::Kind::copy, 0, 3 * kBlockTokens, 1}));
    CHECK(cache.content(0) == wanted);
}

TEST(rows_that_are_not_there_are_not_stashed) {
    if (!Cache::at_hand()) {
        return;
    }
    Cache      cache(true);
    const auto block = std::make_shared<SavedState>();
    cache.fill(0, 60, 100);
    CHECK(!cache.apply({CacheEdit::Kind::stash, 0, 0, -1, {block}}));
    CHECK(!cache.apply({CacheEdit::Kind::fetch, 1, 0, -1, {block}}));
}

TEST(values_in_columns_are_moved_whole) {
    if (!Cache::at_hand()) {
        return;
    }
    Cache cache(true, 2, false);
    CHECK(!cache.state.by_rows());
    CHECK_EQ(cache.state.token_bytes(), size_t{0});
    cache.fill(0, 20, 100);
    const auto whole = cache.content(0);
    CHECK(cache.apply({CacheEdit::Kind::copy, 1, 12, 0}));
    CHECK_EQ(cache.length(1), 12);
    CHECK(cache.apply({CacheEdit::Kind::swap, 0, 0, 1}));
    CHECK_EQ(cache.length(0), 12);
    CHECK(cache.apply({CacheEdit::Kind::swap, 0, 0, 1}));
    CHECK(cache.content(0) == whole);
}

TEST(one_slot_alone_can_be_moved_by_rows) {
    if (Cache::at_hand()) {
        CHECK(Cache(true, 1).state.by_rows());
    }
}

}  // namespace
}  // namespace inferno
