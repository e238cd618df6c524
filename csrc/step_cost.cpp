#include "step_cost.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace inferno {

namespace {

constexpr double kForget = 0.97;  // weight of the past when a step is observed
// Pulls terms that the observations do not determine towards 0, and the rows' towards the mean cost of a row.
constexpr double kRidge = 1e-4;

}  // namespace

void LinearCost::observe(const Load & load, double ms) {
    const Terms terms = {static_cast<double>(load.passes), static_cast<double>(load.rows), load.depth};
    for (size_t i = 0; i < kTerms; ++i) {
        results_[i] = results_[i] * kForget + terms[i] * ms;
        for (size_t j = 0; j < kTerms; ++j) {
            products_[i][j] = products_[i][j] * kForget + terms[i] * terms[j];
        }
    }
    fit();
}

void LinearCost::scale(double factor) {
    for (double & result : results_) {
        result *= factor;
    }
    fit();
}

// A negative cost is noise: the term is left out, and the others are fitted without it.
void LinearCost::fit() {
    std::array<bool, kTerms> used  = {true, true, true};
    Terms                    costs = solve(used);
    for (const size_t term : {size_t{2}, size_t{0}}) {
        if (costs[term] < 0) {
            used[term] = false;
            costs      = solve(used);
        }
    }
    const double mean = results_[0] / products_[0][1];
    pass_             = std::max(0.0, costs[0]);
    row_              = std::clamp(costs[1], 0.1 * mean, mean);  // rows cost something, and no more than the mean says
    depth_            = std::max(0.0, costs[2]);
}

LinearCost::Terms LinearCost::solve(const std::array<bool, kTerms> & used) const {
    std::array<Terms, kTerms> a = products_;
    Terms                     b = results_;
    const double              mean = results_[0] / products_[0][1];
    for (size_t i = 0; i < kTerms; ++i) {
        const double pull = kRidge * products_[i][i] + 1e-12;
        a[i][i] += pull;
        b[i] += i == 1 ? pull * mean : 0;
        if (!used[i]) {
            for (size_t j = 0; j < kTerms; ++j) {
                a[i][j] = a[j][i] = 0;
            }
            a[i][i] = 1;
            b[i]    = 0;
        }
    }
    // Positive definite: no pivoting.
    for (size_t i = 0; i < kTerms; ++i) {
        for (size_t k = i + 1; k < kTerms; ++k) {
            const double factor = a[k][i] / a[i][i];
            for (size_t j = i; j < kTerms; ++j) {
                a[k][j] -= factor * a[i][j];
            }
            b[k] -= factor * b[i];
        }
    }
    Terms x{};
    for (size_t i = kTerms; i-- > 0;) {
        double sum = b[i];
        for (size_t j = i + 1; j < kTerms; ++j) {
            sum -= a[i][j] * x[j];
        }
        x[i] = sum / a[i][i];
    }
    return x;
}

double LinearCost::ms(int32_t rows, int32_t position) const {
    return pass_ + rows * (row_ + depth_ * (position + 0.5 * (rows + 1)));
}

int32_t LinearCost::rows_within(double ms, int32_t position) const {
    ms -= pass_;
    if (ms <= 0 || row_ <= 0) {
        return 0;
    }
    const double first = row_ + depth_ * (position + 0.5);
    // The positive root of depth/2 n^2 + first n = ms, in the form that stays exact when depth is nothing.
    const double n = 2 * ms / (first + std::sqrt(first * first + 2 * depth_ * ms));
    return static_cast<int32_t>(std::min(n, 1e9));
}

void StepCost::observe(const Load & common, const Load & prompt, double ms) {
    if (prompt.rows > 0 && common_.ms(common) > ms) {
        common_.scale(ms / common_.ms(common));
    }
    if (prompt.rows > 0) {
        prompt_.observe(prompt, std::max(0.0, ms - common_.ms(common)));
    }
    if (common.rows > 0) {
        common_.observe(common, std::max(0.0, ms - prompt_.ms(prompt)));  // what the prompts' new cost does not explain
    }
}

}  // namespace inferno
