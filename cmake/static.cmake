# Which of the libraries' forms a build links: sluice_vendor_<library>.
# SLUICE_STATIC: nothing but glibc stays dynamic (tools/gpu_check carries such programs to a machine
# that has a driver and no Debian packages).
find_package(PkgConfig REQUIRED)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
if(SLUICE_STATIC)
  set(sluice_vendor_base fmt::fmt-header-only)
  find_library(utf8proc_archive libutf8proc.a REQUIRED)
  set(sluice_vendor_utf8proc ${utf8proc_archive})
  find_library(xxhash_archive libxxhash.a REQUIRED)
  set(sluice_vendor_xxhash ${xxhash_archive})
  add_compile_definitions(UTF8PROC_STATIC)
  add_link_options(-static-libstdc++ -static-libgcc)
else()
  set(sluice_vendor_base fmt::fmt spdlog::spdlog)
  set(sluice_vendor_utf8proc PkgConfig::UTF8PROC)
  set(sluice_vendor_xxhash PkgConfig::XXHASH)
endif()
