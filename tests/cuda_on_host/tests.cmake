# The CUDA backend without a GPU (README.md beside this file); included where nvcc was found.
set(here ${CMAKE_CURRENT_SOURCE_DIR}/cuda_on_host)
set(work ${CMAKE_CURRENT_BINARY_DIR}/cuda_on_host)
get_filename_component(nvcc_file "${NVCC}" REALPATH)
get_filename_component(toolkit "${nvcc_file}" DIRECTORY)
get_filename_component(toolkit "${toolkit}" DIRECTORY)

add_library(cuda_on_host STATIC cuda_on_host/block.cpp cuda_on_host/cublas.cpp
  cuda_on_host/launch.cpp cuda_on_host/memory.cpp cuda_on_host/runtime.cpp cuda_on_host/state.cpp)
target_compile_features(cuda_on_host PRIVATE cxx_std_20)
target_compile_definitions(cuda_on_host PRIVATE EMU_RACE)
target_include_directories(cuda_on_host SYSTEM PRIVATE "${toolkit}/include")
target_link_libraries(cuda_on_host PRIVATE Eigen3::Eigen multistage_build)

# cuda_on_host_test(NAME COMMAND...): a script of that folder with its tools
function(cuda_on_host_test name)
  add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E env RACE=1 "NVCC=${NVCC}" "CUDA=${toolkit}"
    "PYTHON=${Python3_EXECUTABLE}" "RUNTIME=$<TARGET_FILE:cuda_on_host>" ${BASH} ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS cuda TIMEOUT 1800)
endfunction()

# Instructions of PTX, and faults in their use.
cuda_on_host_test(cuda_on_host ${here}/run.sh ${here}/kernels_test.cu ${work}/kernels)
cuda_on_host_test(cuda_on_host_finds ${here}/self_test.sh ${work})
# The library's own kernels.
cuda_on_host_test(cuda_faults ${here}/run.sh ${here}/device_faults.cu ${work}/device_faults
  -I${PROJECT_SOURCE_DIR}/include)
set_tests_properties(cuda_faults PROPERTIES ENVIRONMENT ORDERS=forward)
cuda_on_host_test(cuda_primitives_on_host ${here}/run.sh ${CMAKE_CURRENT_SOURCE_DIR}/cuda_primitives.cu
  ${work}/primitives -I${PROJECT_SOURCE_DIR}/include)
set_tests_properties(cuda_primitives_on_host PROPERTIES ENVIRONMENT ORDERS=shuffle)
cuda_on_host_test(cuda_preset ${here}/preset.sh ${PROJECT_SOURCE_DIR} ${work}/preset)
# The repository's golden cases; the large ones, whose tensor-core instructions take the emulator many
# minutes, by hand: golden.sh PROJECT WORK_DIR FILES.
cuda_on_host_test(golden_cuda_on_host ${here}/golden.sh ${PROJECT_SOURCE_DIR} ${work}/preset)
set_tests_properties(golden_cuda_on_host PROPERTIES DEPENDS cuda_preset)
set_tests_properties(cuda_preset golden_cuda_on_host PROPERTIES RESOURCE_LOCK cuda_preset)
