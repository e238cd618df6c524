#include "scheduler.h"

#include <algorithm>
#include <cassert>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>

namespace inferno {

namespace {

constexpr int32_t kMinPromptRows = 16;    // a step computes so many of prompts, and fewer are no pass of their own
constexpr int32_t kMinFollow     = 64;    // common tokens that are worth waiting for; fewer are sooner computed twice
constexpr int32_t kFirstGuess    = 64;    // prompt rows beside generation before any cost is known
constexpr size_t  kChoice        = 16;    // of so many waiting sequences of a tenant the one with least to do starts

double milliseconds(TimePoint from, TimePoint to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
}

// Lower priority, else newer.
bool gives_way(const Sequence * a, const Sequence * b) {
    return a->priority != b->priority ? a->priority < b->priority : a->id > b->id;
}

bool by_slot(const Sequence * a, const Sequence * b) {
    return a->slot < b->slot;
}

// The prompt rows of one step: as many as there is room for, beside generation no more than there is time for.
class PromptBudget {
public:
    // `common`: the rows of the pass that all take part in, when somebody generates.
    PromptBudget(const SchedulerOptions & options, const StepCost & cost, const Load & common)
        : cost_(cost.prompt()), timed_(common.rows > 0), rows_(options.batch_size - common.rows),
          ms_(options.step_budget_ms - cost.common().ms(common)) {}

    // Up to `wanted` rows from `position` on.
    int32_t take(int32_t wanted, Position position) {
        int32_t n = timed_ ? std::min(wanted, affordable(position)) : wanted;
        if (n > 0 && wanted - n < kMinPromptRows) {  // the rest would be a pass of its own
            n = n < wanted && wanted >= 2 * kMinPromptRows ? wanted - kMinPromptRows : wanted;
        }
        n = std::min(n, rows_);
        rows_ -= n;
        taken_ += n;
        ms_ -= n > 0 ? cost_.ms(n, position) : 0;
        return n;
    }

private:
    int32_t affordable(Position position) const {
        const int32_t n = cost_.known() ? cost_.rows_within(ms_, position) : kFirstGuess - taken_;
        return n >= kMinPromptRows ? n : taken_ == 0 ? kMinPromptRows : 0;
    }

    const LinearCost & cost_;
    const bool         timed_;
    int32_t            rows_;
    double             ms_;
    int32_t            taken_ = 0;
};

}  // namespace

Scheduler::Scheduler(const SchedulerOptions & options)
    : options_(options), cache_({options.parallel, options.prefix_cache, options.can_trim, options.store_bytes, options.token_bytes}) {}

void Scheduler::add(Sequence * sequence) {
    queue_.enter(*sequence);
    queue_.push(sequence);
}

void Scheduler::remove(Sequence * sequence) {
    if (sequence->leader != nullptr) {
        unfollow(sequence);
    } else if (sequence->slot >= 0) {
        settle(sequence);
        cache_.release(sequence->slot);
        leave_slot(sequence);
        short_of_room_ = false;
    } else {
        queue_.erase(sequence);
        take_state(sequence);
    }
    queue_.leave(*sequence);
}

void Scheduler::leave_slot(Sequence * sequence) {
    running_.erase(std::find(running_.begin(), running_.end(), sequence));
    sequence->slot = -1;
    sequence->draft.clear();
    free_followers(sequence, std::numeric_limits<Position>::max());
}

Step Scheduler::plan(TimePoint now) {
    Step step;
    step.batch.edits = std::exchange(pending_edits_, {});
    close_gap(step);
    admit(step, now);
    add_rows(step, now);
    return step;
}

// The model computes rows of consecutive slots in one pass and needs another pass for each gap, so the outermost
// sequence moves into a gap: one exchange a step, of whichever end has less to carry.
void Scheduler::close_gap(Step & step) {
    if (running_.size() < 2) {
        return;
    }
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
    step.batch.edits.push_back({CacheEdit::Kind::swap, mover->slot, 0, target});
    cache_.swap(mover->slot, target);
    mover->slot = target;
}

void Scheduler::admit(Step & step, TimePoint now) {
    while (!queue_.empty() && !short_of_room_) {
        Sequence * victim = cache_.has_free_slot() ? nullptr : lowest();
        if (victim != nullptr && victim->priority >= queue_.priority()) {
            return;
        }
        Sequence * next = pick(now);
        if (next == nullptr) {
            continue;
        }
        if (victim != nullptr) {
            preempt(victim, step.batch.edits);
        }
        queue_.take(next);
        start(next, step, now);
    }
}

double Scheduler::slack(const Sequence & sequence, int32_t n_rows, TimePoint now) const {
    return n_rows * cost_.prompt().row_ms() - milliseconds(sequence.accepted, now);
}

Sequence * Scheduler::pick(TimePoint now) {
    Sequence * best       = nullptr;
    double     best_slack = 0;
    for (Sequence * candidate : queue_.first(kChoice)) {
        if (follow(candidate)) {
            queue_.erase(candidate);
            continue;
        }
        const Position done = candidate->saved != nullptr
                                  ? candidate->n_past
                                  : cache_.available(candidate->tokens, candidate->cache_salt);
        const double its_slack = slack(*candidate, candidate->n_tokens() - done, now);
        if (best == nullptr || its_slack < best_slack) {
            best       = candidate;
            best_slack = its_slack;
        }
    }
    return best;
}

void Scheduler::start(Sequence * sequence, Step & step, TimePoint now) {
    const bool resumes = sequence->saved != nullptr;
    auto placement = resumes ? cache_.acquire_empty() : cache_.acquire(sequence->tokens, sequence->cache_salt);
    assert(placement);
    sequence->slot = placement->slot;
    auto & edits   = step.batch.edits;
    edits.insert(edits.end(), placement->edits.begin(), placement->edits.end());
    if (resumes) {
        edits.push_back({CacheEdit::Kind::restore, placement->slot, 0, -1, {take_state(sequence)}});
        // Who starts beside it copies what it has, and does not wait for it.
        cache_.publish(sequence->slot, sequence->tokens, sequence->n_past, sequence->cache_salt);
    } else {
        sequence->n_past = placement->n_cached;
    }
    cache_.promise(sequence->slot, sequence->tokens, sequence->cache_salt);
    if (!sequence->started()) {
        sequence->scheduled = now;
        sequence->n_cached  = std::min(placement->n_cached, sequence->n_prompt);
    }
    running_.push_back(sequence);
}

bool Scheduler::follow(Sequence * sequence) {
    const auto promised = cache_.promised(sequence->tokens, sequence->cache_salt);
    if (sequence->saved != nullptr || promised.length < kMinFollow) {
        return false;
    }
    Sequence * leader = nullptr;
    for (Sequence * candidate : running_) {
        if (promised.slots.test(static_cast<size_t>(candidate->slot)) && candidate->priority >= sequence->priority &&
            (leader == nullptr || candidate->n_past > leader->n_past)) {
            leader = candidate;
        }
    }
    if (leader == nullptr ||
        promised.length - cache_.available(sequence->tokens, sequence->cache_salt) < kMinFollow) {
        return false;
    }
    sequence->leader = leader;
    sequence->split  = promised.length;
    followers_[leader].emplace(sequence->split, sequence);
    return true;
}

void Scheduler::unfollow(Sequence * sequence) {
    const auto found = followers_.find(std::exchange(sequence->leader, nullptr));
    found->second.erase({sequence->split, sequence});
    if (found->second.empty()) {
        followers_.erase(found);
    }
}

void Scheduler::free_followers(Sequence * leader, Position computed) {
    auto found = followers_.find(leader);
    while (found != followers_.end() && found->second.begin()->first <= computed) {
        Sequence * follower = found->second.begin()->second;
        unfollow(follower);
        queue_.push(follower);
        found = followers_.find(leader);
    }
}

Sequence * Scheduler::lowest() const {
    Sequence * result = nullptr;
    for (Sequence * sequence : running_) {
        if (result == nullptr || gives_way(sequence, result)) {
            result = sequence;
        }
    }
    return result;
}

void Scheduler::preempt(Sequence * sequence, std::vector<CacheEdit> & edits) {
    if (sequence->n_past > 0 && may_save(sequence->n_past)) {
        sequence->saved = std::make_shared<SavedState>();
        edits.push_back({CacheEdit::Kind::save, sequence->slot, 0, -1, {sequence->saved}});
        ++n_saved_;
    } else {
        sequence->n_past = 0;
    }
    cache_.discard(sequence->slot);
    leave_slot(sequence);
    ++preemptions_;
    queue_.push(sequence);
}

bool Scheduler::may_save(Position n) {
    return options_.token_bytes > 0 ? cache_.store().set_aside(n) : n_saved_ < static_cast<size_t>(options_.parallel);
}

std::shared_ptr<SavedState> Scheduler::take_state(Sequence * sequence) {
    if (sequence->saved != nullptr) {
        --n_saved_;
        if (options_.token_bytes > 0) {
            cache_.store().give_back(sequence->n_past);
        }
    }
    return std::exchange(sequence->saved, nullptr);
}

size_t Scheduler::n_waiting() const {
    return std::accumulate(followers_.begin(), followers_.end(), queue_.size(),
                           [](size_t n, const auto & of_leader) { return n + of_leader.second.size(); });
}

int32_t Scheduler::n_urgent(const Sequence * sequence) const {
    const auto found = followers_.find(sequence);
    return found == followers_.end() ? sequence->n_uncomputed() : found->second.begin()->first - sequence->n_past;
}

std::vector<Sequence *> Scheduler::prompts_by_slack(TimePoint now) const {
    std::vector<Sequence *> prompts;
    std::copy_if(running_.begin(), running_.end(), std::back_inserter(prompts),
                 [](const Sequence * sequence) { return !sequence->decoding(); });
    std::stable_sort(prompts.begin(), prompts.end(), [&](const Sequence * a, const Sequence * b) {
        return a->priority != b->priority ? a->priority > b->priority
                                          : slack(*a, n_urgent(a), now) < slack(*b, n_urgent(b), now);
    });
    return prompts;
}

void Scheduler::add_rows(Step & step, TimePoint now) {
    std::vector<Sequence *> generating;
    for (Sequence * sequence : running_) {
        sequence->draft.clear();  // left by a step that found no room
    }
    std::copy_if(running_.begin(), running_.end(), std::back_inserter(generating),
                 [](const Sequence * sequence) { return sequence->decoding(); });
    draft(generating);
    std::vector<std::pair<Sequence *, int32_t>> shares;
    Load                                        common{generating.empty() ? 0 : 1};
    for (Sequence * sequence : generating) {
        shares.emplace_back(sequence, 1 + static_cast<int32_t>(sequence->draft.size()));
        common.add(sequence->n_past);
    }
    const std::vector<Sequence *> prompts  = prompts_by_slack(now);
    const int32_t                 n_common = common.passes;  // of each prompt
    for (const Sequence * sequence : prompts) {
        common.add(sequence->n_past, n_common);
    }
    PromptBudget budget(options_, cost_, common);
    for (Sequence * sequence : prompts) {
        // A leader stops where others can go on with it: the step ends sooner, and the next has rows of them all.
        const int32_t rows = n_common + budget.take(n_urgent(sequence) - n_common, sequence->n_past + n_common);
        if (rows > 0) {
            shares.emplace_back(sequence, rows);
        }
    }
    std::sort(shares.begin(), shares.end(), [](const auto & a, const auto & b) { return by_slot(a.first, b.first); });
    for (const auto & [sequence, rows] : shares) {
        add_part(step, sequence, rows);
    }
}

void Scheduler::add_part(Step & step, Sequence * sequence, int32_t rows) {
    const auto n_drafted = static_cast<int32_t>(sequence->draft.size());
    const bool completes = rows - n_drafted == sequence->n_uncomputed();
    for (int32_t i = 0; i < rows; ++i) {
        const Position position = sequence->n_past + i;
        const Token    token    = position < sequence->n_tokens()
                                      ? sequence->tokens[static_cast<size_t>(position)]
                                      : sequence->draft[static_cast<size_t>(position - sequence->n_tokens())];
        step.batch.rows.push_back({sequence->slot, position, token, completes && i + 1 >= rows - n_drafted});
    }
    step.parts.push_back({sequence, rows, completes, n_drafted, step.batch.rows.size() - 1});
}

void Scheduler::draft(std::vector<Sequence *> generating) {
    // With two rows of logits or more each. Beside prompts steps are long, and their rows dear, as it is.
    const size_t n_most = static_cast<size_t>(std::min(options_.max_outputs, options_.batch_size)) / 2;
    if (options_.draft_tokens == 0 || !options_.can_trim || generating.empty() || generating.size() > n_most ||
        generating.size() < running_.size()) {
        return;
    }
    std::sort(generating.begin(), generating.end(), by_slot);
    std::vector<DraftOffer> offers;
    for (Sequence * sequence : generating) {
        offers.push_back(offer(sequence));
    }
    const double  draft_ms = options_.drafter != nullptr ? options_.drafter->token_ms() : 0;
    const int32_t length =
        speculation_.length(offers, static_cast<int32_t>(2 * n_most), cost_.prompt().row_ms(), draft_ms);
    std::vector<Sequence *> to_make;
    for (size_t i = 0; i < generating.size(); ++i) {
        const bool drafts = length > 0 && offers[i].n_drafted >= length;
        if (drafts && offers[i].is_made) {
            to_make.push_back(generating[i]);
        } else {
            generating[i]->draft.resize(drafts ? static_cast<size_t>(length) : 0);
        }
    }
    if (!to_make.empty()) {
        options_.drafter->draft(to_make, length);
    }
}

DraftOffer Scheduler::offer(Sequence * sequence) const {
    const int32_t most = std::min(options_.draft_tokens, sequence->params.max_tokens - sequence->n_generated() - 1);
    sequence->draft    = sequence->lookup.propose(sequence->tokens, most);
    sequence->draft_is_made = sequence->draft.empty() && options_.drafter != nullptr;
    const auto n_drafted    = sequence->draft_is_made ? most : static_cast<int32_t>(sequence->draft.size());
    return {sequence->slot, n_drafted, sequence->draft_record().rate(), sequence->draft_is_made};
}

void Scheduler::commit(const Step & step, double ms) {
    const bool beside = std::any_of(step.parts.begin(), step.parts.end(),
                                    [](const Step::Part & part) { return part.sequence->decoding(); });
    Load common{beside ? 1 : 0};
    Load prompt;
    for (const Step::Part & part : step.parts) {
        Sequence &    sequence = *part.sequence;
        const int32_t n_common = sequence.decoding() ? part.n_rows : common.passes;
        common.add(sequence.n_past, n_common);
        prompt.add(sequence.n_past + n_common, part.n_rows - n_common);
        prompt.passes += part.n_rows > n_common ? 1 : 0;
        sequence.n_past += part.n_rows - part.n_drafted;
        sequence.n_drafted = part.n_drafted;
        drafted_tokens_ += static_cast<uint64_t>(part.n_drafted);
        queue_.charge(sequence, part.n_rows);
        cache_.publish(sequence.slot, sequence.tokens, sequence.n_past, sequence.cache_salt);
        free_followers(&sequence, sequence.n_past);
    }
    observe(step, common, prompt, ms);
}

void Scheduler::observe(const Step & step, const Load & common, const Load & prompt, double ms) {
    const auto drafts = [](const Step::Part & part) { return part.n_drafted > 0; };
    const auto n      = static_cast<size_t>(std::count_if(step.parts.begin(), step.parts.end(), drafts));
    if (n == 0) {
        cost_.observe(common, prompt, ms);
    }
    const bool one_pass = (n == 0 || n == step.parts.size()) &&
                          step.parts.back().sequence->slot - step.parts.front().sequence->slot + 1 ==
                              static_cast<Slot>(step.parts.size());
    if (prompt.rows == 0 && one_pass) {
        speculation_.observe(common.rows, ms);
    }
}

void Scheduler::accept(Sequence * sequence) {
    sequence->n_past += 1;
    sequence->n_drafted -= 1;
    accepted_tokens_ += 1;
}

void Scheduler::settle(Sequence * sequence) {
    if (sequence->draft.empty()) {
        return;
    }
    const auto n_drafted = static_cast<int32_t>(sequence->draft.size());
    sequence->draft_record().observe(n_drafted, n_drafted - sequence->n_drafted);
    sequence->draft.clear();
    cache_.publish(sequence->slot, sequence->tokens, sequence->n_past, sequence->cache_salt);
    if (std::exchange(sequence->n_drafted, 0) > 0) {
        pending_edits_.push_back({CacheEdit::Kind::trim, sequence->slot, sequence->n_past});
    }
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
    const Slot slot = lowest()->slot;
    preempt(lowest(), pending_edits_);
    pending_edits_.push_back({CacheEdit::Kind::trim, slot, 0});
    short_of_room_ = true;
    return true;
}

void Scheduler::roll_back(const Step & step) {
    if (!options_.can_trim) {
        return recompute(step);
    }
    for (const Step::Part & part : step.parts) {
        part.sequence->draft.clear();
        pending_edits_.push_back({CacheEdit::Kind::trim, part.sequence->slot, part.sequence->n_past});
    }
}

void Scheduler::recompute(const Step & step) {
    SlotSet touched;
    for (const Step::Part & part : step.parts) {
        touched.set(static_cast<size_t>(part.sequence->slot));
    }
    for (const CacheEdit & edit : step.batch.edits) {
        touched.set(static_cast<size_t>(edit.slot));
        if (edit.kind == CacheEdit::Kind::swap) {
            touched.set(static_cast<size_t>(edit.source));
        }
    }
    pending_edits_     = cache_.forget_idle();
    short_of_room_     = false;
    const auto running = running_;
    for (Sequence * sequence : running) {
        if (touched.test(static_cast<size_t>(sequence->slot))) {
            pending_edits_.push_back({CacheEdit::Kind::trim, sequence->slot, 0});
            cache_.discard(sequence->slot);
            sequence->n_past = 0;
            leave_slot(sequence);
            queue_.push(sequence);
        }
    }
}

}  // namespace inferno
