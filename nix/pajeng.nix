# PajeNG: pj_dump and pj_equals for the Paje traces that starpu_fxt_tool writes; not in nixpkgs.
{
  lib,
  stdenv,
  fetchFromGitHub,
  cmake,
  bison,
  flex,
  boost,
  fmt,
  hash,
}:
stdenv.mkDerivation rec {
  pname = "pajeng";
  version = "1.3.10";
  src = fetchFromGitHub {
    owner = "schnorr";
    repo = "pajeng";
    rev = "87d2d263020339defddeeaf6586723d0f840f5a4"; # 1.3.10
    inherit hash;
  };
  nativeBuildInputs = [
    cmake
    bison
    flex
  ];
  buildInputs = [
    boost
    flex
    fmt
  ];
  # Its own RPATH points into the build folder.
  cmakeFlags = [ "-DCMAKE_SKIP_BUILD_RPATH=ON" ];
  meta = {
    description = "Tools for traces in the Paje format";
    homepage = "https://github.com/schnorr/pajeng";
    license = lib.licenses.gpl3Plus;
    platforms = lib.platforms.linux;
  };
}
