#include "scheduler.h"

#include <algorithm>
#include <cassert>

namespace inferno {

namespace {

constexpr double  kForget        = 0.97;  // weight of the past when a step is observed
constexpr int32_t kMinPromptRows = 16;    // a prompt advances at least this much a step
constexpr int32_t kFirstGuess    = 64;    // prompt rows beside generation before any cost is known

double milliseconds(TimePoint from, TimePoint to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
}

bool before(const Sequence * a, const Sequence * b) {
    return a->priority != b->priority ? a->priority > b->priority : a->id < b->id;
}

}  // namespace

void StepCost::observe(int32_t rows, double ms) {
    const double x = rows;
    weight_        = weight_ * kForget + 1;
    x_             = x_ * kForget + x;
    y_             = y_ * kForget + ms;
    xx_            = xx_ * kForget + x * x;
    xy_            = xy_ * kForget + x * ms;
}

double StepCost::row_ms() const {
    if (weight_ == 0) {
        return 0;
    }
    const double mean     = y_ / x_;
    const double variance = weight_ * xx_ - x_ * x_;
    const double slope    = variance > 1e-6 * xx_ * weight_ ? (weight_ * xy_ - x_ * y_) / variance : mean;
    // The slope is trusted within reason: rows cost something, and no more than the mean says.
    return std::clamp(slope, 0.1 * mean, mean);
}

int32_t StepCost::rows_within(double ms) const {
    if (weight_ == 0) {
        return 0;
    }
    const double slope = row_ms();
    const double base  = std::max(0.0, (y_ - slope * x_) / weight_);
    return static_cast<int32_t>(std::max(0.0, (ms - base) / std::max(slope, 1e-6)));
}

Scheduler::Scheduler(const SchedulerOptions & options)
    : options_(options), cache_(options.parallel, options.prefix_cache, options.can_trim) {}

void Scheduler::add(Sequence * sequence) {
    waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), sequence, before), sequence);
}

void Scheduler::remove(Sequence * sequence) {
    const auto waiting = std::find(waiting_.begin(), waiting_.end(), sequence);
    if (waiting != waiting_.end()) {
        waiting_.erase(waiting);
    }
    pending_saves_.erase(std::remove_if(pending_saves_.begin(), pending_saves_.end(),
                                        [&](const Step::Move & move) { return move.sequence == sequence; }),
                         pending_saves_.end());
    const auto running = std::find(running_.begin(), running_.end(), sequence);
    if (running != running_.end()) {
        running_.erase(running);
        cache_.release(sequence->slot);
        sequence->slot = -1;
        short_of_room_ = false;
    }
}

Step Scheduler::plan(TimePoint now) {
    Step step;
    close_gap(step);
    step.saves = std::move(pending_saves_);
    pending_saves_.clear();
    step.batch.edits = std::move(pending_edits_);
    pending_edits_.clear();
    admit(step, now);
    add_rows(step, now);
    return step;
}

// The model computes rows of consecutive slots in one pass and needs another pass for each gap, so the outermost
// sequence moves into a gap: one exchange a step, of whichever end has less to carry.
void Scheduler::close_gap(Step & step) {
    // A pending save or edit names a slot, so slots stay where they are until it is done.
    if (running_.size() < 2 || !pending_saves_.empty() || !pending_edits_.empty()) {
        return;
    }
    const auto by_slot = [](const Sequence * a, const Sequence * b) { return a->slot < b->slot; };
    const auto [bottom, top] = std::minmax_element(running_.begin(), running_.end(), by_slot);
    if ((*top)->slot - (*bottom)->slot + 1 == static_cast<Slot>(running_.size())) {
        return;
    }
    Slot lowest_gap = (*bottom)->slot + 1;
    while (cache_.busy(lowest_gap)) {
        ++lowest_gap;
    }
    Slot highest_gap = (*top)->slot - 1;
    while (cache_.busy(highest_gap)) {
        --highest_gap;
    }
    const bool move_top = (*top)->n_past <= (*bottom)->n_past;
    Sequence * mover    = move_top ? *top : *bottom;
    const Slot target   = move_top ? lowest_gap : highest_gap;
    step.swaps.emplace_back(mover->slot, target);
    cache_.swap(mover->slot, target);
    mover->slot = target;
}

void Scheduler::admit(Step & step, TimePoint now) {
    while (!waiting_.empty() && !short_of_room_) {
        Sequence * next = waiting_.front();
        if (!cache_.has_free_slot()) {
            Sequence * victim = lowest();
            if (victim == nullptr || victim->priority >= next->priority) {
                return;
            }
            preempt(victim);
            step.saves.push_back(pending_saves_.back());
            pending_saves_.pop_back();
        }
        waiting_.erase(std::find(waiting_.begin(), waiting_.end(), next));
        start(next, step, now);
    }
}

void Scheduler::start(Sequence * sequence, Step & step, TimePoint now) {
    const bool resumes = !sequence->saved.empty();
    auto placement = resumes ? cache_.acquire_empty() : cache_.acquire(sequence->tokens, sequence->cache_salt);
    assert(placement);
    sequence->slot = placement->slot;
    if (resumes) {
        // The restored state replaces the slot's content, so an edit still due there must not follow it.
        auto & edits = step.batch.edits;
        edits.erase(std::remove_if(edits.begin(), edits.end(),
                                   [&](const CacheEdit & edit) { return edit.slot == placement->slot; }),
                    edits.end());
        step.restores.push_back({sequence, placement->slot});
    } else {
        step.batch.edits.insert(step.batch.edits.end(), placement->edits.begin(), placement->edits.end());
        sequence->n_past = placement->n_cached;
    }
    if (!sequence->started()) {
        sequence->scheduled = now;
        sequence->n_cached  = std::min(placement->n_cached, sequence->n_prompt);
    }
    running_.push_back(sequence);
}

Sequence * Scheduler::lowest() const {
    Sequence * result = nullptr;
    for (Sequence * sequence : running_) {
        if (result == nullptr || before(result, sequence)) {
            result = sequence;
        }
    }
    return result;
}

void Scheduler::preempt(Sequence * sequence) {
    running_.erase(std::find(running_.begin(), running_.end(), sequence));
    pending_saves_.push_back({sequence, sequence->slot});
    cache_.discard(sequence->slot);
    sequence->slot = -1;
    ++preemptions_;
    add(sequence);
}

int32_t Scheduler::prompt_rows(int32_t n_decoding) const {
    const int32_t room = options_.batch_size - n_decoding;
    if (n_decoding == 0) {
        return room;
    }
    const int32_t affordable = cost_.rows_within(options_.step_budget_ms);
    const int32_t wanted     = affordable == 0 ? kFirstGuess : affordable - n_decoding;
    return std::min(room, std::max(kMinPromptRows, wanted));
}

void Scheduler::add_rows(Step & step, TimePoint now) {
    std::vector<Sequence *> prompts;
    int32_t                 n_decoding = 0;
    for (Sequence * sequence : running_) {
        if (sequence->decoding()) {
            ++n_decoding;
        } else {
            prompts.push_back(sequence);
        }
    }
    const double row_ms = cost_.row_ms();
    const auto   slack  = [&](const Sequence * sequence) {
        return sequence->n_uncomputed() * row_ms - milliseconds(sequence->accepted, now);
    };
    std::stable_sort(prompts.begin(), prompts.end(), [&](const Sequence * a, const Sequence * b) {
        return a->priority != b->priority ? a->priority > b->priority : slack(a) < slack(b);
    });

    std::vector<std::pair<Sequence *, int32_t>> shares;
    for (Sequence * sequence : running_) {
        if (sequence->decoding()) {
            shares.emplace_back(sequence, 1);
        }
    }
    int32_t left = prompt_rows(n_decoding);
    for (Sequence * sequence : prompts) {
        const int32_t rows = std::min(left, sequence->n_uncomputed());
        if (rows > 0) {
            shares.emplace_back(sequence, rows);
            left -= rows;
        }
    }
    std::sort(shares.begin(), shares.end(),
              [](const auto & a, const auto & b) { return a.first->slot < b.first->slot; });

    for (const auto & [sequence, rows] : shares) {
        const bool completes = rows == sequence->n_uncomputed();
        for (int32_t i = 0; i < rows; ++i) {
            const Position position = sequence->n_past + i;
            step.batch.rows.push_back({sequence->slot, position, sequence->tokens[static_cast<size_t>(position)],
                                       completes && i + 1 == rows});
        }
        step.parts.push_back({sequence, rows, completes, step.batch.rows.size() - 1});
    }
}

void Scheduler::commit(const Step & step, double ms) {
    for (const Step::Part & part : step.parts) {
        Sequence & sequence = *part.sequence;
        sequence.n_past += part.n_rows;
        cache_.publish(sequence.slot, sequence.tokens, sequence.n_past, sequence.cache_salt);
    }
    cost_.observe(static_cast<int32_t>(step.batch.rows.size()), ms);
}

bool Scheduler::make_room() {
    const std::vector<CacheEdit> evictions = cache_.evict_idle();
    if (!evictions.empty()) {
        pending_edits_ = evictions;
        return true;
    }
    if (running_.size() < 2) {
        return false;
    }
    pending_edits_.push_back({CacheEdit::Kind::trim, lowest()->slot, 0});  // after its state has been saved
    preempt(lowest());
    short_of_room_ = true;
    return true;
}

void Scheduler::recompute(const Step & step) {
    pending_edits_ = cache_.evict_idle();
    for (const Step::Part & part : step.parts) {
        Sequence * sequence = part.sequence;
        running_.erase(std::find(running_.begin(), running_.end(), sequence));
        pending_edits_.push_back({CacheEdit::Kind::trim, sequence->slot, 0});
        cache_.discard(sequence->slot);
        sequence->slot   = -1;
        sequence->n_past = 0;
        add(sequence);
    }
}

}  // namespace inferno
