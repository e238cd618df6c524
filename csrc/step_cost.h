// How long a step takes, learned from the steps that were computed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace inferno {

// Rows of one kind in a step: how many, and how many positions they attend to, all rows together.
struct Load {
    int32_t rows  = 0;
    double  depth = 0;

    // One row at `position`.
    void add(int32_t position) {
        rows += 1;
        depth += position + 1;
    }
};

// ms = base + row * rows + depth * depth, by least squares over recent observations (older ones fade). What they do not
// tell apart goes to the rows.
class LinearCost {
public:
    void   observe(const Load & load, double ms);
    bool   known() const { return weight_ > 0; }
    double ms(const Load & load) const { return base_ + row_ * load.rows + depth_ * load.depth; }
    double row_ms() const { return row_; }
    // What the first of `rows` rows from `position` on, and those after it, add to a step.
    double ms(int32_t rows, int32_t position) const;
    // How many rows from `position` on take `ms`, in a step that takes its base time anyway.
    int32_t rows_within(double ms, int32_t position) const;
    double  base_ms() const { return base_; }

private:
    static constexpr size_t kTerms = 3;
    using Terms                    = std::array<double, kTerms>;

    void fit();
    // Least squares with the terms that are `used`; the others are 0.
    Terms solve(const std::array<bool, kTerms> & used) const;

    double                    weight_ = 0;
    std::array<Terms, kTerms> products_{};  // of terms with terms
    Terms                     results_{};   // of terms with ms
    double                    base_  = 0;
    double                    row_   = 0;
    double                    depth_ = 0;
};

// Rows that generate and prompt rows are two costs: few rows wait for the weights to be read, many for the arithmetic,
// and streams compute the two in passes of their own.
class StepCost {
public:
    void observe(const Load & generation, const Load & prompt, double ms);

    const LinearCost & prompt() const { return prompt_; }
    double             generation_ms(const Load & load) const { return load.rows > 0 ? generation_.ms(load) : 0; }

private:
    LinearCost generation_;
    LinearCost prompt_;
};

}  // namespace inferno
