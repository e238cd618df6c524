// Where ggml's CPU backend is a module, what it has of the base classes of our operations cannot be linked.
#ifdef GGML_BACKEND_DL

#include <traits.h>

namespace ggml::cpu {

tensor_traits::~tensor_traits() = default;

extra_buffer_type::~extra_buffer_type() = default;

}  // namespace ggml::cpu

#endif
