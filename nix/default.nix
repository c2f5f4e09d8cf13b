# Everything that the flake gives for one system.
{
  pkgs,
  cudaPkgs,
  src,
}:
let
  hashes = import ./hashes.nix { inherit (pkgs) lib; };
  fxt = pkgs.callPackage ./fxt.nix { hash = hashes.fxt; };
  pajeng = pkgs.callPackage ./pajeng.nix { hash = hashes.pajeng; };
  alumet-agent = pkgs.callPackage ./alumet {
    srcHash = hashes.alumet.src;
    cargoHash = hashes.alumet.cargo;
  };
  starpu = import ./starpu.nix { inherit pkgs cudaPkgs fxt; };
  python = import ./python.nix { inherit pkgs hashes; };
  cudaPython = import ./python.nix {
    pkgs = cudaPkgs;
    inherit hashes;
    extras = [ "gpu" ];
  };
in
{
  packages = {
    inherit fxt pajeng alumet-agent;
    starpu-native = starpu.native;
    starpu-simgrid = starpu.simgrid;
    starpu-traced = starpu.traced;
    starpu-cuda = starpu.cuda;
    prefixes = starpu.prefixes;
    python = python.environment;
    python-versions = python.versions;
    default = starpu.prefixes;
  };
  shells = import ./shells.nix {
    inherit
      pkgs
      cudaPkgs
      starpu
      python
      cudaPython
      pajeng
      ;
  };
  apps = import ./apps.nix { inherit pkgs starpu python; };
  checks = import ./checks.nix {
    inherit
      pkgs
      starpu
      python
      src
      ;
  };
}
