// Guesses by a smaller model with the same vocabulary: its most likely tokens.
#pragma once

#include <memory>
#include <vector>

#include "drafter.h"
#include "model.h"
#include "sequence.h"

namespace inferno {

// Follows each text in a slot of its own model, which reads what is new of it first, at most a batch at a time.
class DraftModel : public Drafter {
public:
    // REQUIRES: the model generates and can_trim(), and has as many slots as there are sequences at once.
    explicit DraftModel(std::unique_ptr<Model> model);

    void   draft(const std::vector<Sequence *> & sequences, int32_t n) override;
    double token_ms() const override { return token_ms_; }

private:
    struct Text {
        RequestId          owner = 0;  // 0: nobody
        std::vector<Token> tokens;     // in the KV cache
        uint64_t           last_use = 0;
    };
    struct Reader {
        Sequence * sequence;
        Slot       slot;
        size_t     last_row;  // of the batch, has logits
    };

    Slot slot_of(RequestId id) const;
    Slot take_slot(RequestId id);
    // Reads what is new of the texts, by one batch; those that are read to their end.
    std::vector<Reader> read(const std::vector<Sequence *> & sequences, Batch & batch);
    bool                add_text(const Sequence & sequence, Slot slot, Batch & batch);
    bool                decode(const Batch & batch);
    void                guess(std::vector<Reader> & readers);

    std::unique_ptr<Model> model_;
    std::vector<Text>      texts_;  // by slot
    uint64_t               tick_     = 0;
    double                 token_ms_ = 0;
};

// The model that the options name, null when they name none. Throws Error(invalid_request, field "draft_model") when
// it cannot be loaded or cannot guess for `model`.
std::unique_ptr<Model> load_draft_model(const Model & model, const EngineOptions & options);
// What loading it would take; nothing when the options name none. Throws Error(invalid_request, field "draft_model").
MemoryEstimate estimate_draft_memory(const EngineOptions & options);

}  // namespace inferno
