// Vulkan drivers that compute on the processor, such as lavapipe. ggml hides them unless the environment variable
// GGML_VK_VISIBLE_DEVICES names them.
#pragma once

#include <cstddef>

namespace inferno {

// Where Vulkan has nothing else, and the variable is not set, sets it to them. Once, before ggml looks for devices.
void show_software_devices();

// True when what ggml calls Vulkan<index> is one.
bool is_software_device(size_t index);

// True when they are visible by our doing alone: only a model that asks for one by name uses it.
bool software_is_by_name_only();

}  // namespace inferno
