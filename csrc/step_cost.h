// How long a step takes, learned from the steps that were computed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace inferno {

// Rows of one kind in a step: in how many passes over the weights, how many, and how many positions they attend to, all
// rows together.
struct Load {
    int32_t passes = 0;
    int32_t rows   = 0;
    double  depth  = 0;

    // `n` rows from `position` on.
    void add(int32_t position, int32_t n = 1) {
        rows += n;
        depth += n * (position + 0.5 * (n + 1));
    }
};

// ms = pass * passes + row * rows + depth * depth, by least squares over recent observations (older ones fade). What they
// do not tell apart goes to the rows.
class LinearCost {
public:
    void   observe(const Load & load, double ms);
    void   scale(double factor);  // all that has been learned, when the machine turns out to be faster
    bool   known() const { return row_ > 0; }
    double ms(const Load & load) const { return pass_ * load.passes + row_ * load.rows + depth_ * load.depth; }
    double row_ms() const { return row_; }
    double pass_ms() const { return pass_; }
    // A pass of `rows` rows from `position` on.
    double ms(int32_t rows, int32_t position) const;
    // How many rows from `position` on a pass may have to take `ms`.
    int32_t rows_within(double ms, int32_t position) const;

private:
    static constexpr size_t kTerms = 3;
    using Terms                    = std::array<double, kTerms>;

    void fit();
    // Least squares with the terms that are `used`; the others are 0.
    Terms solve(const std::array<bool, kTerms> & used) const;

    std::array<Terms, kTerms> products_{};  // of terms with terms
    Terms                     results_{};   // of terms with ms
    double                    pass_  = 0;
    double                    row_   = 0;
    double                    depth_ = 0;
};

// Of a step: the pass that all sequences have a row in, and passes of prompts. They are two costs: few rows wait for the
// weights to be read, many for the arithmetic. Of a step that has both, each is what the other's cost leaves, and the
// common pass is never more than the step.
class StepCost {
public:
    void observe(const Load & common, const Load & prompt, double ms);

    const LinearCost & common() const { return common_; }
    const LinearCost & prompt() const { return prompt_; }

private:
    LinearCost common_;
    LinearCost prompt_;
};

}  // namespace inferno
