#include "kernels/gelu.h"

#include <cmath>
#include <limits>
#include <vector>

#include "test.h"

namespace inferno::kernels {
namespace {

double expected(double x) {
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

TEST(gelu_agrees_with_its_definition_and_writes_no_further) {
    if (gelu_kernel() == nullptr) {
        return;
    }
    std::vector<float> x;
    for (float value = -30; value < 30; value += 0.0371f) {
        x.push_back(value);
    }
    for (const float value : {0.0f, -0.0f, 1e-30f, 3e38f, -3e38f, std::numeric_limits<float>::denorm_min()}) {
        x.push_back(value);
    }
    std::vector<float> y(x.size() + 1, 77.0f);
    gelu_kernel()(x.data(), y.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
        const double right = x[i] < -1e6f ? 0 : x[i] > 1e6f ? static_cast<double>(x[i]) : expected(static_cast<double>(x[i]));
        CHECK(std::fabs(static_cast<double>(y[i]) - right) <= 1e-6 * std::fabs(static_cast<double>(x[i])) + 1e-30);
    }
    CHECK_EQ(y.back(), 77.0f);
}

}  // namespace
}  // namespace inferno::kernels
