# FxT, the trace format that StarPU writes; not in nixpkgs.
{
  lib,
  stdenv,
  fetchzip,
  gawk,
  perl,
  hash,
}:
stdenv.mkDerivation rec {
  pname = "fxt";
  version = "0.3.15";
  src = fetchzip {
    url = "mirror://savannah/fkt/fxt-${version}.tar.gz";
    inherit hash;
  };
  nativeBuildInputs = [
    gawk
    perl
  ];
  meta = {
    description = "Fast user and kernel traces";
    homepage = "https://savannah.nongnu.org/projects/fkt/";
    license = lib.licenses.gpl2Plus;
    platforms = lib.platforms.linux;
  };
}
