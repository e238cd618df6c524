// Decides when computing guessed tokens pays. Pure policy.
//
// Speculative decoding (Leviathan et al., 2023, https://arxiv.org/abs/2211.17192) with guesses that are single tokens:
// the rows of a guess are computed in one step with the token before it, each position is sampled as always, and the
// guess counts as far as it says what was sampled. So texts are those without speculation, draw by draw. What it may
// cost is time, for a row that is thrown away takes some.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace inferno {

// How often the next token of a sequence's guesses was right.
class DraftRecord {
public:
    double rate() const { return right_ / checked_; }
    void   observe(int32_t drafted, int32_t accepted);

private:
    // One half, worth two checks, until something is known; what was long ago fades.
    double right_   = 1;
    double checked_ = 2;
};

// How long steps take in which every row samples, by the number of their rows.
class RowCost {
public:
    static constexpr int32_t kMaxRows = 256;

    void observe(int32_t rows, double ms);
    // A number that has not been seen is taken to cost `row_ms` for each row more than the next smaller one that has,
    // and no more than the next larger one. Nothing when no smaller one is known.
    std::optional<double> ms(int32_t rows, double row_ms) const;

private:
    std::array<double, kMaxRows + 1> ms_{};  // 0: not seen
};

// A sequence that is about to compute its next token.
struct DraftOffer {
    int32_t slot;
    int32_t n_drafted;
    double  rate;              // DraftRecord's
    bool    is_made = false;  // its guess does not exist yet, and takes time
};

class Speculation {
public:
    // A step of `rows` rows that all sample, in one pass, has taken `ms`.
    void observe(int32_t rows, double ms) { cost_.observe(rows, ms); }

    // How many tokens of their guesses those sequences are to compute that have as many, so that most tokens a
    // millisecond are to be expected; 0 when that is none. `offers` ascend by slot; at most `max_rows` in all.
    // Guesses that are made take `draft_ms` a token, all of them together.
    // When it has said 0 many times in a row it says what is next best instead: costs and texts change.
    int32_t length(const std::vector<DraftOffer> & offers, int32_t max_rows, double row_ms, double draft_ms = 0);

private:
    // Expected tokens a millisecond; nothing when it cannot be done or said.
    std::optional<double> speed(const std::vector<DraftOffer> & offers, int32_t length, int32_t max_rows,
                                double row_ms, double draft_ms) const;
    // Of a step of `n` sequences of which those in runs of so many slots have `length` rows more.
    std::optional<double> step_ms(int32_t n, int32_t length, const std::vector<int32_t> & runs, double row_ms) const;

    RowCost cost_;
    int32_t n_declined_ = 0;
};

}  // namespace inferno
