// Everything at once: common heads, priorities, drafts, cancelled, failed and aborted steps, a cache that is too small.
// Whatever the scheduler decides, texts are those that each prompt has alone.
#include <algorithm>
#include <memory>
#include <random>

#include "fake_model.h"
#include "scheduler.h"
#include "test.h"

namespace inferno {
namespace {

using testing::FakeModel;

constexpr int32_t kContext = 600;

// Guesses right, wrong, or not at all.
class FickleDrafter : public Drafter {
public:
    explicit FickleDrafter(std::mt19937 & random) : random_(random) {}

    void draft(const std::vector<Sequence *> & sequences, int32_t length) override {
        for (Sequence * sequence : sequences) {
            std::vector<Token> text = sequence->tokens;
            sequence->draft.clear();
            for (int32_t i = 0; i < length && random_() % 8 != 0; ++i) {
                text.push_back(random_() % 4 != 0 ? FakeModel::next_looping(text) : Token{'?'});
                sequence->draft.push_back(text.back());
            }
        }
    }
    double token_ms() const override { return 0.01; }

private:
    std::mt19937 & random_;
};

class RandomRun {
public:
    explicit RandomRun(unsigned seed)
        : random_(seed), drafter_(random_), parallel_(1 + below(5)), batch_size_(std::max(parallel_, 8 << below(6))),
          model_(parallel_, kContext, batch_size_), store_bytes_(static_cast<size_t>(below(40)) * kBlockTokens * 4),
          fails_(below(3) == 0), scheduler_(options()) {
        model_.loop();
        if (below(4) == 0) {
            model_.set_capacity(kContext + 100 + below(kContext * parallel_));
        }
    }

    void run() {
        for (int i = 0; i < 250 || !sequences_.empty(); ++i) {
            CHECK(i < 20000);
            if (i >= 20000) {
                return;
            }
            if (i < 250 && below(3) == 0 && sequences_.size() < 20) {
                arrive(1 + below(4));
            }
            if (!sequences_.empty() && below(15) == 0) {
                drop(sequences_[static_cast<size_t>(below(static_cast<int>(sequences_.size())))].get());
            }
            if (!sequences_.empty()) {
                step();
            }
        }
        CHECK(model_.valid());
    }

private:
    int below(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }

    SchedulerOptions options() {
        const int32_t drafts = below(9);
        return {parallel_,   batch_size_, 1.0 + below(50), below(8) != 0, true,
                store_bytes_, 4,          batch_size_,     drafts,        below(2) == 0 ? &drafter_ : nullptr};
    }

    TimePoint now() const { return TimePoint() + std::chrono::milliseconds(steps_); }

    void arrive(int n) {
        for (int i = 0; i < n; ++i) {
            constexpr int      kHeads[] = {0, 20, 70, 150, 300};
            std::vector<Token> prompt(static_cast<size_t>(kHeads[below(5)]), 'h');
            for (int own = 1 + below(200); own > 0; --own) {
                prompt.push_back('a' + below(26));
            }
            SamplingParams params;
            params.max_tokens = std::min(below(30) == 0 ? kContext : 1 + below(60), kContext - static_cast<int>(prompt.size()));
            sequences_.push_back(std::make_unique<Sequence>(++last_id_, std::move(prompt), params));
            Sequence & sequence = *sequences_.back();
            sequence.priority   = below(4) - 2;
            sequence.cache_salt = static_cast<uint64_t>(below(3));
            sequence.accepted   = now();
            scheduler_.add(&sequence);
        }
    }

    void drop(Sequence * sequence) {
        std::vector<Token> text(sequence->tokens.begin(), sequence->tokens.begin() + sequence->n_prompt);
        while (text.size() < sequence->tokens.size()) {
            text.push_back(FakeModel::next_looping(text));
        }
        CHECK(text == sequence->tokens);
        scheduler_.remove(sequence);
        sequences_.erase(std::find_if(sequences_.begin(), sequences_.end(),
                                      [&](const auto & other) { return other.get() == sequence; }));
    }

    void step() {
        const Step step = scheduler_.plan(now());
        ++steps_;
        CHECK(!step.parts.empty());
        CHECK(step.batch.rows.size() <= static_cast<size_t>(batch_size_));
        if (fails_ && below(40) == 0) {
            model_.fail_next();
        }
        model_.set_abort(below(40) == 0);
        switch (model_.decode(step.batch)) {
            case DecodeStatus::ok:
                scheduler_.commit(step, 1 + 0.02 * static_cast<double>(step.batch.rows.size()));
                for (const Step::Part & part : step.parts) {
                    if (part.samples) {
                        sample(part);
                    }
                }
                break;
            case DecodeStatus::no_space:
                if (!scheduler_.make_room()) {
                    drop(step.parts.front().sequence);
                }
                break;
            case DecodeStatus::aborted:
                scheduler_.roll_back(step);
                break;
            case DecodeStatus::failed:
                scheduler_.recompute(step);
                break;
        }
        CHECK(scheduler_.stored_bytes() <= store_bytes_);
    }

    void sample(const Step::Part & part) {
        Sequence &   sequence = *part.sequence;
        const size_t first    = part.last_row - static_cast<size_t>(part.n_drafted);
        for (size_t i = 0;; ++i) {
            const float * logits = model_.logits(first + i);
            sequence.tokens.push_back(static_cast<Token>(std::max_element(logits, logits + 257) - logits));
            if (sequence.n_generated() >= sequence.params.max_tokens) {
                return drop(&sequence);
            }
            if (i == sequence.draft.size() || sequence.tokens.back() != sequence.draft[i]) {
                return scheduler_.settle(&sequence);
            }
            scheduler_.accept(&sequence);
        }
    }

    std::mt19937                           random_;
    FickleDrafter                          drafter_;
    const int32_t                          parallel_;
    const int32_t                          batch_size_;
    FakeModel                              model_;
    const size_t                           store_bytes_;
    const bool                             fails_;
    Scheduler                              scheduler_;
    std::vector<std::unique_ptr<Sequence>> sequences_;
    RequestId                              last_id_ = 0;
    int                                    steps_   = 0;
};

TEST(whatever_is_decided_texts_are_those_of_each_prompt_alone) {
    for (unsigned seed = 1; seed <= 40; ++seed) {
        RandomRun(seed).run();
    }
}

}  // namespace
}  // namespace inferno
