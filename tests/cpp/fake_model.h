// A model for tests of policy: bytes are tokens, and the next token is a function of everything in the slot's KV
// cache. A wrong copy, swap, trim or restore therefore changes the text.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "error.h"
#include "model.h"

namespace testing {

using inferno::Batch;
using inferno::BatchRow;
using inferno::CacheEdit;
using inferno::DecodeStatus;
using inferno::Slot;
using inferno::Token;

// 256 bytes and one token that ends the text.
class ByteVocabulary : public inferno::Vocabulary {
public:
    static constexpr Token kEnd = 256;

    ByteVocabulary() {
        for (int i = 0; i < 256; ++i) {
            bytes_.push_back(static_cast<char>(i));
        }
    }

    int32_t          size() const override { return 257; }
    std::string_view piece(Token token) const override {
        return token == kEnd ? std::string_view() : std::string_view(bytes_).substr(static_cast<size_t>(token), 1);
    }
    bool                       is_end(Token token) const override { return token == kEnd; }
    const std::vector<Token> & end_tokens() const override { return end_; }
    std::vector<Token>         tokenize(std::string_view text, bool, bool) const override {
        std::vector<Token> tokens;
        for (const char c : text) {
            tokens.push_back(static_cast<unsigned char>(c));
        }
        return tokens;
    }
    std::string detokenize(const std::vector<Token> & tokens, bool) const override {
        std::string text;
        for (const Token token : tokens) {
            text += piece(token);
        }
        return text;
    }

private:
    std::string        bytes_;
    std::vector<Token> end_{kEnd};
};

class FakeModel : public inferno::Model {
public:
    FakeModel(int32_t parallel, int32_t context_size, int32_t batch_size = 64)
        : parallel_(parallel), context_size_(context_size), batch_size_(batch_size),
          cells_(static_cast<size_t>(parallel)) {
        info_.can_generate = true;
        info_.can_embed    = true;
        info_.n_vocab      = vocabulary_.size();
        info_.n_embd       = 2;
    }

    const inferno::ModelInfo &  info() const override { return info_; }
    const inferno::Vocabulary & vocabulary() const override { return vocabulary_; }
    int32_t                     context_size() const override { return context_size_; }
    int32_t                     parallel() const override { return parallel_; }
    int32_t                     batch_size() const override { return batch_size_; }
    int32_t                     max_outputs() const override { return batch_size_; }
    bool                        can_trim() const override { return true; }
    size_t                      token_bytes() const override { return sizeof(Token); }

    // The letter that follows `history`.
    static Token next(const std::vector<Token> & history) {
        uint32_t hash = 2166136261U;
        for (const Token token : history) {
            hash = (hash ^ static_cast<uint32_t>(token)) * 16777619U;
        }
        return 'a' + static_cast<Token>(hash % 26);
    }

    // As next(), but mostly what came five tokens before: such a text repeats itself.
    static Token next_looping(const std::vector<Token> & history) {
        const Token other = next(history);
        return history.size() < 5 || other < 'c' ? other : history[history.size() - 5];
    }

    // What greedy generation of `n` tokens gives, computed without any cache.
    static std::string expected(const std::string & prompt, int n, Token (*next)(const std::vector<Token> &) = &FakeModel::next) {
        std::vector<Token> history = ByteVocabulary().tokenize(prompt, false, false);
        std::string        text;
        for (int i = 0; i < n; ++i) {
            history.push_back(next(history));
            text.push_back(static_cast<char>(history.back()));
        }
        return text;
    }

    DecodeStatus decode(const Batch & batch) override {
        wait_at_gate();
        apply(batch.edits);
        n_calls_ += 1;
        n_rows_ += batch.rows.size();
        if (throw_next_.exchange(false)) {
            throw std::runtime_error("a bug");
        }
        if (fail_next_.exchange(false)) {
            return DecodeStatus::failed;
        }
        if (abort_) {
            return DecodeStatus::aborted;
        }
        if (capacity_ > 0 && n_used() + static_cast<int64_t>(batch.rows.size()) > capacity_) {
            return DecodeStatus::no_space;
        }
        logits_.clear();
        Slot last = -1;
        for (size_t i = 0; i < batch.rows.size(); ++i) {
            const BatchRow & row  = batch.rows[i];
            auto &           cell = cells_[static_cast<size_t>(row.slot)];
            valid_ = valid_ && row.position == static_cast<int32_t>(cell.size()) && row.slot >= last &&
                     row.position < context_size_;
            last = row.slot;
            cell.push_back(row.token);
            if (row.want_logits) {
                logits_[i].assign(static_cast<size_t>(vocabulary_.size()), 0.0f);
                logits_[i][static_cast<size_t>((looping_ ? next_looping : next)(cell))] = 10.0f;
            }
        }
        return DecodeStatus::ok;
    }

    const float * logits(size_t row) override { return logits_.at(row).data(); }

    std::vector<std::vector<float>> embed(const std::vector<std::vector<Token>> & inputs) override {
        wait_at_gate();
        if (abort_) {
            throw inferno::Error(inferno::ErrorCode::inference_failed, "aborted");
        }
        largest_embedding_batch_ = std::max(largest_embedding_batch_, inputs.size());
        std::vector<std::vector<float>> result;
        for (const auto & input : inputs) {
            result.push_back({static_cast<float>(input.size()), 0.0f});
        }
        return result;
    }
    int32_t embed_batch_size() const override { return 16; }

    void set_abort(bool abort) override {
        const std::lock_guard<std::mutex> lock(mutex_);
        abort_ = abort;
        moved_.notify_all();
    }
    inferno::MemoryEstimate memory() const override { return {}; }

    // ---- for tests ------------------------------------------------------------------------------------------------

    void loop() { looping_ = true; }
    void set_capacity(int64_t tokens) { capacity_ = tokens; }
    void fail_next() { fail_next_ = true; }
    void throw_next() { throw_next_ = true; }

    // While the gate is closed decode() and embed() wait at it; wait_for_step() returns once one does.
    void close_gate() {
        const std::lock_guard<std::mutex> lock(mutex_);
        gate_closed_ = true;
    }
    void open_gate() {
        const std::lock_guard<std::mutex> lock(mutex_);
        gate_closed_ = false;
        moved_.notify_all();
    }
    // Lets the step at the gate through and waits for the next one.
    void step() {
        std::unique_lock<std::mutex> lock(mutex_);
        pass_    = true;
        at_gate_ = false;
        moved_.notify_all();
        moved_.wait(lock, [this] { return at_gate_; });
    }
    void wait_for_step() {
        std::unique_lock<std::mutex> lock(mutex_);
        moved_.wait(lock, [this] { return at_gate_; });
    }

    bool   valid() const { return valid_; }  // positions and slots came in order
    size_t n_rows() const { return n_rows_; }
    size_t n_calls() const { return n_calls_; }
    size_t largest_embedding_batch() const { return largest_embedding_batch_; }
    const std::vector<Token> & cell(Slot slot) const { return cells_[static_cast<size_t>(slot)]; }

private:
    int64_t n_used() const {
        int64_t total = 0;
        for (const auto & cell : cells_) {
            total += static_cast<int64_t>(cell.size());
        }
        return total;
    }

    void apply(const std::vector<CacheEdit> & edits) {
        for (const CacheEdit & edit : edits) {
            apply(edit);
        }
    }

    void apply(const CacheEdit & edit) {
        auto & cell = cells_[static_cast<size_t>(edit.slot)];
        switch (edit.kind) {
            case CacheEdit::Kind::copy:
                cell = cells_[static_cast<size_t>(edit.source)];
                [[fallthrough]];
            case CacheEdit::Kind::trim:
                valid_ = valid_ && cell.size() >= static_cast<size_t>(edit.from);
                cell.resize(std::min(cell.size(), static_cast<size_t>(edit.from)));
                break;
            case CacheEdit::Kind::swap:
                std::swap(cell, cells_[static_cast<size_t>(edit.source)]);
                break;
            case CacheEdit::Kind::save:
                put(cell, 0, cell.size(), *edit.states[0]);
                break;
            case CacheEdit::Kind::stash:
                for (size_t i = 0; i < edit.states.size(); ++i) {
                    const size_t from = static_cast<size_t>(edit.from) + i * inferno::kBlockTokens;
                    valid_            = valid_ && from + inferno::kBlockTokens <= cell.size();
                    put(cell, from, inferno::kBlockTokens, *edit.states[i]);
                }
                break;
            case CacheEdit::Kind::restore:
            case CacheEdit::Kind::fetch:
                cell.clear();
                for (const auto & state : edit.states) {
                    valid_             = valid_ && state->size > 0;
                    const auto * first = reinterpret_cast<const Token *>(state->bytes.get());
                    cell.insert(cell.end(), first, first + state->size / sizeof(Token));
                }
                break;
        }
    }

    static void put(const std::vector<Token> & cell, size_t from, size_t n, inferno::SavedState & state) {
        state.allocate(n * sizeof(Token));
        std::memcpy(state.bytes.get(), cell.data() + from, state.size);
    }

    void wait_at_gate() {
        std::unique_lock<std::mutex> lock(mutex_);
        at_gate_ = gate_closed_;
        moved_.notify_all();
        moved_.wait(lock, [this] { return !gate_closed_ || pass_ || abort_; });
        at_gate_ = pass_ = false;
    }

    inferno::ModelInfo                   info_;
    ByteVocabulary                       vocabulary_;
    const int32_t                        parallel_;
    const int32_t                        context_size_;
    const int32_t                        batch_size_;
    std::vector<std::vector<Token>>      cells_;
    std::map<size_t, std::vector<float>> logits_;
    std::atomic<bool>                    looping_{false};
    std::atomic<int64_t>                 capacity_{0};
    std::atomic<bool>                    fail_next_{false};
    std::atomic<bool>                    throw_next_{false};
    std::atomic<bool>                    abort_{false};
    std::atomic<bool>                    valid_{true};
    std::atomic<size_t>                  n_rows_{0};
    std::atomic<size_t>                  n_calls_{0};
    size_t                               largest_embedding_batch_ = 0;

    std::mutex              mutex_;
    std::condition_variable moved_;
    bool                    gate_closed_ = false;
    bool                    at_gate_     = false;
    bool                    pass_        = false;
};

}  // namespace testing
