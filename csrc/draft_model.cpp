#include "draft_model.h"

#include <algorithm>
#include <chrono>

#include "error.h"

namespace inferno {

namespace {

constexpr double kNewDraft = 0.1;  // weight of a new draft in the mean
constexpr size_t kFewRows  = 4;    // of a text that are new since its last draft

EngineOptions draft_options(const EngineOptions & options) {
    EngineOptions result   = options;
    result.prefix_cache    = false;
    result.prefix_store_mb = 0;
    result.prefix_store_path.clear();
    result.draft_tokens    = 0;
    result.draft_model.clear();
    return result;
}

[[noreturn]] void refuse(const std::string & why) {
    throw Error(ErrorCode::invalid_request, "draft_model: " + why, "draft_model");
}

bool names_one(const EngineOptions & options) {
    if (!options.draft_model.empty() && options.draft_tokens == 0) {
        refuse("With draft_tokens = 0 it would never be asked.");
    }
    return !options.draft_model.empty();
}

bool same_vocabulary(const Vocabulary & a, const Vocabulary & b) {
    if (a.size() != b.size() || a.end_tokens() != b.end_tokens()) {
        return false;
    }
    for (Token token = 0; token < a.size(); ++token) {
        if (a.piece(token) != b.piece(token)) {
            return false;
        }
    }
    return true;
}

}  // namespace

DraftModel::DraftModel(std::unique_ptr<Model> model)
    : model_(std::move(model)), texts_(static_cast<size_t>(model_->parallel())) {}

void DraftModel::draft(const std::vector<Sequence *> & sequences, int32_t n) {
    for (Sequence * sequence : sequences) {
        sequence->draft.clear();
    }
    const TimePoint     began = Clock::now();
    Batch               text;
    std::vector<Reader> readers = read(sequences, text);
    if (readers.empty()) {
        return;
    }
    guess(readers);
    for (int32_t i = 1; i < n; ++i) {
        Batch batch;
        for (Reader & reader : readers) {
            auto &      tokens = texts_[static_cast<size_t>(reader.slot)].tokens;
            const Token token  = reader.sequence->draft.back();
            reader.last_row    = batch.rows.size();
            batch.rows.push_back({reader.slot, static_cast<Position>(tokens.size()), token, true});
            tokens.push_back(token);
        }
        if (!decode(batch)) {
            return;  // what has been guessed is as good as it was
        }
        guess(readers);
    }
    if (text.rows.size() > kFewRows * readers.size()) {
        return;  // a prompt was read, which is done once
    }
    const double ms = std::chrono::duration<double, std::milli>(Clock::now() - began).count() / n;
    token_ms_ += (token_ms_ > 0 ? kNewDraft : 1) * (ms - token_ms_);
}

std::vector<DraftModel::Reader> DraftModel::read(const std::vector<Sequence *> & sequences, Batch & batch) {
    std::vector<Reader> readers;
    for (Sequence * sequence : sequences) {
        const Slot held = slot_of(sequence->id);
        readers.push_back({sequence, held, 0});
        if (held >= 0) {
            texts_[static_cast<size_t>(held)].last_use = ++tick_;
        }
    }
    for (Reader & reader : readers) {
        reader.slot = reader.slot >= 0 ? reader.slot : take_slot(reader.sequence->id);
    }
    std::sort(readers.begin(), readers.end(), [](const Reader & a, const Reader & b) { return a.slot < b.slot; });
    std::vector<Reader> ready;
    for (Reader & reader : readers) {
        if (add_text(*reader.sequence, reader.slot, batch)) {
            reader.last_row = batch.rows.size() - 1;
            ready.push_back(reader);
        }
    }
    return decode(batch) ? ready : std::vector<Reader>{};
}

Slot DraftModel::slot_of(RequestId id) const {
    const auto found = std::find_if(texts_.begin(), texts_.end(), [id](const Text & text) { return text.owner == id; });
    return found == texts_.end() ? -1 : static_cast<Slot>(found - texts_.begin());
}

// Of the text that was followed least recently.
Slot DraftModel::take_slot(RequestId id) {
    const auto oldest = std::min_element(texts_.begin(), texts_.end(), [](const Text & a, const Text & b) {
        return a.last_use < b.last_use;
    });
    oldest->owner    = id;
    oldest->last_use = ++tick_;
    return static_cast<Slot>(oldest - texts_.begin());
}

// True when the batch holds the text to its end. At least the last token is computed, for its logits.
bool DraftModel::add_text(const Sequence & sequence, Slot slot, Batch & batch) {
    auto &       held   = texts_[static_cast<size_t>(slot)].tokens;
    const auto & tokens = sequence.tokens;
    const auto   limit  = static_cast<std::ptrdiff_t>(std::min(held.size(), tokens.size() - 1));
    const auto   common = std::mismatch(held.begin(), held.begin() + limit, tokens.begin()).first - held.begin();
    if (static_cast<size_t>(common) < held.size()) {
        batch.edits.push_back({CacheEdit::Kind::trim, slot, static_cast<Position>(common)});
        held.resize(static_cast<size_t>(common));
    }
    const size_t room = static_cast<size_t>(model_->batch_size()) - batch.rows.size();
    const size_t end  = std::min(tokens.size(), held.size() + room);
    for (size_t i = held.size(); i < end; ++i) {
        batch.rows.push_back({slot, static_cast<Position>(i), tokens[i], i + 1 == tokens.size()});
    }
    held.insert(held.end(), tokens.begin() + static_cast<std::ptrdiff_t>(held.size()),
                tokens.begin() + static_cast<std::ptrdiff_t>(end));
    return end == tokens.size();
}

// After a failure nothing is known of any slot.
bool DraftModel::decode(const Batch & batch) {
    if (model_->decode(batch) == DecodeStatus::ok) {
        return true;
    }
    Batch empty;
    for (size_t slot = 0; slot < texts_.size(); ++slot) {
        empty.edits.push_back({CacheEdit::Kind::trim, static_cast<Slot>(slot), 0});
        texts_[slot] = {};
    }
    model_->decode(empty);
    return false;
}

void DraftModel::guess(std::vector<Reader> & readers) {
    const auto n_vocab = model_->vocabulary().size();
    for (Reader & reader : readers) {
        const float * logits = model_->logits(reader.last_row);
        reader.sequence->draft.push_back(static_cast<Token>(std::max_element(logits, logits + n_vocab) - logits));
    }
}

std::unique_ptr<Model> load_draft_model(const Model & model, const EngineOptions & options) {
    if (!names_one(options)) {
        return nullptr;
    }
    EngineOptions wanted = draft_options(options);
    wanted.context_size  = model.context_size();
    wanted.parallel      = model.parallel();
    std::unique_ptr<Model> result;
    try {
        result = load_model(options.draft_model.string(), wanted, {});
    } catch (const Error & error) {
        refuse(error.what());
    }
    if (!result->info().can_generate || !result->can_trim()) {
        refuse("A model of this kind cannot guess for another.");
    }
    if (result->context_size() < model.context_size()) {
        refuse("It was trained for " + std::to_string(result->context_size()) + " tokens, fewer than the context of " +
               std::to_string(model.context_size()) + ".");
    }
    if (!same_vocabulary(model.vocabulary(), result->vocabulary())) {
        refuse("Its vocabulary is not that of the model.");
    }
    return result;
}

MemoryEstimate estimate_draft_memory(const EngineOptions & options) {
    if (!names_one(options)) {
        return {};
    }
    try {
        return estimate_memory(options.draft_model.string(), draft_options(options));
    } catch (const Error & error) {
        refuse(error.what());
    }
}

}  // namespace inferno
