# A build that runs on any processor of the architecture: ggml is shared libraries in lib/ beside the module, its CPU
# code a module for each kind of processor. llama.cpp itself stays part of _core.
if(INFERNO_NATIVE)
  message(FATAL_ERROR "INFERNO_PORTABLE=ON needs INFERNO_NATIVE=OFF: it is for other machines than this one.")
endif()
set(GGML_BACKEND_DL ON)
set(GGML_CPU_ALL_VARIANTS ON)
set(GGML_LLAMAFILE ON)  # what llama.cpp says to its ggml, which is asked for ahead of it
set(GGML_CUDA_GRAPHS ON)
set(GGML_ALL_WARNINGS OFF)
if(APPLE)
  set(_origin "@loader_path")
else()
  set(_origin "$ORIGIN")
endif()

# Ahead of llama.cpp, which takes a ggml that is there already: so that only ggml is shared.
set(BUILD_SHARED_LIBS ON)
add_subdirectory("${INFERNO_LLAMA_SOURCE}/ggml" llama.cpp/ggml EXCLUDE_FROM_ALL SYSTEM)
set(BUILD_SHARED_LIBS OFF)

set(INFERNO_BACKENDS)
foreach(_backend IN LISTS GGML_AVAILABLE_BACKENDS)  # remembers those of earlier configurations
  if(TARGET ${_backend})
    list(APPEND INFERNO_BACKENDS ${_backend})
  endif()
endforeach()
# Names of our own: another package in the same Python may bring a libggml-base.so, and the first one loaded wins.
set_target_properties(ggml-base PROPERTIES OUTPUT_NAME inferno-ggml-base)
set_target_properties(ggml PROPERTIES OUTPUT_NAME inferno-ggml)
foreach(_target ggml-base ggml ${INFERNO_BACKENDS})
  foreach(_property VERSION SOVERSION PUBLIC_HEADER)  # a wheel has no symbolic links, and this one no headers
    set_property(TARGET ${_target} PROPERTY ${_property})
  endforeach()
  set_target_properties(${_target} PROPERTIES
    LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib" RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib"
    BUILD_RPATH_USE_ORIGIN ON INSTALL_RPATH "${_origin}")
  if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT MSVC AND NOT APPLE)
    target_link_options(${_target} PRIVATE -Wl,--gc-sections -Wl,-s)
  endif()
  install(TARGETS ${_target}
    LIBRARY DESTINATION inferno/lib COMPONENT inferno
    RUNTIME DESTINATION inferno/lib COMPONENT inferno)
endforeach()
