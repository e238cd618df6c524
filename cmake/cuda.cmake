# nvcc and cuBLAS: of a CUDA toolkit, or NVIDIA's packages from PyPI (dependency group `cuda` in pyproject.toml) beside the
# Python that builds. Whole packages are taken before a toolkit, unless CMAKE_CUDA_COMPILER or CUDACXX names one.
set(INFERNO_CUDA_ARCHITECTURES "75-real;80-real;86-real;89-real;90;100-real;120-real" CACHE STRING
    "GPUs to compile for: Turing to Blackwell; 90 carries PTX too, for what comes later")
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES "${INFERNO_CUDA_ARCHITECTURES}")
endif()
set(GGML_CUDA_NO_VMM ON)  # no link with the driver: the module loads where there is none, and the build needs none
set(GGML_CUDA_NCCL OFF)   # not by what happens to be installed

find_package(Python REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c "import sysconfig as s; print(s.get_path('purelib'), s.get_path('platlib'), sep=';')"
  OUTPUT_VARIABLE _sites OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
list(TRANSFORM _sites APPEND "/nvidia/cu13")
find_path(INFERNO_CUDA_PACKAGES NAMES lib/libcublas.so.13 PATHS ${_sites} NO_DEFAULT_PATH
          DOC "Where NVIDIA's packages from PyPI lie")

if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX} AND EXISTS "${INFERNO_CUDA_PACKAGES}/bin/nvcc")
  set(CMAKE_CUDA_COMPILER "${INFERNO_CUDA_PACKAGES}/bin/nvcc" CACHE FILEPATH "The CUDA compiler")
  set(CMAKE_CUDA_FLAGS "-L${INFERNO_CUDA_PACKAGES}/lib" CACHE STRING "Flags of the CUDA compiler")  # nvcc looks in lib64
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "INFERNO_CUDA=ON needs nvcc, and none was found. Install the CUDA toolkit and put nvcc on the PATH "
                      "(or set CUDACXX), or `pip install --group cuda` into the environment that builds.")
endif()
enable_language(CUDA)

# A package has libcublas.so.13 and no libcublas.so.
if(INFERNO_CUDA_PACKAGES)
  foreach(_name cudart cublas cublasLt)
    if(EXISTS "${INFERNO_CUDA_PACKAGES}/lib/lib${_name}.so.13")
      find_library(CUDA_${_name}_LIBRARY NAMES ${_name} lib${_name}.so.13
                   HINTS "${CMAKE_CUDA_COMPILER}/../../lib64" "${INFERNO_CUDA_PACKAGES}/lib")
    endif()
  endforeach()
  if(CUDA_cudart_LIBRARY)
    set(CUDA_CUDART "${CUDA_cudart_LIBRARY}" CACHE FILEPATH "The CUDA runtime")
  endif()
endif()
find_package(CUDAToolkit QUIET)
if(NOT TARGET CUDA::cublas)
  message(FATAL_ERROR "INFERNO_CUDA=ON needs cuBLAS, which the CUDA toolkit found has not. Install it, or "
                      "`pip install --group cuda` into the environment that builds.")
endif()
if(CUDA_cublas_LIBRARY MATCHES "^${INFERNO_CUDA_PACKAGES}/")
  # its headers, after those of the toolkit that compiles; and it is found again beside the installed module
  target_include_directories(CUDA::cublas INTERFACE "${INFERNO_CUDA_PACKAGES}/include")
  set(INFERNO_INSTALL_RPATH "$ORIGIN/../nvidia/cu13/lib")
endif()
