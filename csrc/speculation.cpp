#include "speculation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace inferno {

namespace {

constexpr double  kForget      = 0.8;   // weight of what was checked before a token
constexpr double  kNewStep     = 0.1;   // weight of a new step in the mean of its kind
constexpr double  kMargin      = 1.05;  // what is to be gained at least: estimates are noisy
constexpr int32_t kTryAnywayAt = 64;

// Of a guess whose every token is right with probability `rate` if all before it are.
double expected_accepted(double rate, int32_t length) {
    double sum = 0, all_right = 1;
    for (int32_t i = 0; i < length; ++i) {
        all_right *= rate;
        sum += all_right;
    }
    return sum;
}

}  // namespace

void DraftRecord::observe(int32_t drafted, int32_t accepted) {
    const int32_t checked = accepted + (accepted < drafted ? 1 : 0);
    const double  past    = std::pow(kForget, checked);
    right_                = right_ * past + accepted;
    checked_              = checked_ * past + checked;
}

void RowCost::observe(int32_t rows, double ms) {
    if (rows < 1 || rows > kMaxRows) {
        return;
    }
    double & mean = ms_[static_cast<size_t>(rows)];
    mean          = mean > 0 ? mean + kNewStep * (ms - mean) : ms;
}

std::optional<double> RowCost::ms(int32_t rows, double row_ms) const {
    if (rows < 1 || rows > kMaxRows) {
        return std::nullopt;
    }
    const auto seen  = [](double ms) { return ms > 0; };
    const auto at    = ms_.begin() + rows;
    const auto below = std::find_if(std::make_reverse_iterator(at + 1), ms_.rend(), seen);
    if (below == ms_.rend()) {
        return std::nullopt;
    }
    const auto more  = (at + 1) - below.base();
    const auto above = std::find_if(at, ms_.end(), seen);
    const double ms  = *below + static_cast<double>(more) * row_ms;
    return above == ms_.end() ? ms : std::min(ms, std::max(*above, *below));
}

std::optional<double> Speculation::speed(const std::vector<DraftOffer> & offers, int32_t length, int32_t max_rows,
                                         double row_ms, double draft_ms) const {
    const auto           n      = static_cast<int32_t>(offers.size());
    double               tokens = n;
    bool                 makes  = false;
    std::vector<int32_t> runs;  // of sequences in consecutive slots that have such a guess
    int32_t              last_slot = -2;
    for (const DraftOffer & offer : offers) {
        if (length == 0 || offer.n_drafted < length) {
            continue;
        }
        tokens += expected_accepted(offer.rate, length);
        makes = makes || offer.is_made;
        if (offer.slot != last_slot + 1) {
            runs.push_back(0);
        }
        runs.back() += 1;
        last_slot = offer.slot;
    }
    const int32_t drafting = std::accumulate(runs.begin(), runs.end(), 0);
    if (n + drafting * length > max_rows || (length > 0 && drafting == 0)) {
        return std::nullopt;
    }
    const auto ms = step_ms(n, length, runs, row_ms);
    return ms ? std::optional(tokens / (*ms + (makes ? length * draft_ms : 0))) : std::nullopt;
}

// Rows of sequences with guesses and those without differ in number, which takes a pass of their own, as does each gap
// between slots.
std::optional<double> Speculation::step_ms(int32_t n, int32_t length, const std::vector<int32_t> & runs,
                                           double row_ms) const {
    if (runs.empty() || runs.front() == n) {
        return cost_.ms(n * (1 + length), row_ms);
    }
    std::optional<double> ms = cost_.ms(n, row_ms);
    for (const int32_t run : runs) {
        const auto pass = cost_.ms(run * length, row_ms);
        ms              = ms && pass ? std::optional(*ms + *pass) : std::nullopt;
    }
    return ms;
}

int32_t Speculation::length(const std::vector<DraftOffer> & offers, int32_t max_rows, double row_ms,
                            double draft_ms) {
    const auto plain = speed(offers, 0, max_rows, row_ms, draft_ms);
    int32_t    most  = 0;
    for (const DraftOffer & offer : offers) {
        most = std::max(most, offer.n_drafted);
    }
    if (!plain || most == 0) {
        return 0;
    }
    int32_t best = 0;
    double  best_speed = 0;
    for (int32_t length = 1; length <= most; ++length) {
        const auto its = speed(offers, length, max_rows, row_ms, draft_ms);
        if (its && *its > best_speed) {
            best       = length;
            best_speed = *its;
        }
    }
    if (best_speed > *plain * kMargin || (best > 0 && ++n_declined_ >= kTryAnywayAt)) {
        n_declined_ = 0;
        return best;
    }
    return 0;
}

}  // namespace inferno
