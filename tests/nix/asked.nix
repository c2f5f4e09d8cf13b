# What the flake asks nixpkgs for, on one system, as plain values for the tests.
{ system, root }:
let
  nixpkgs = {
    outPath = ./nixpkgs;
    lib = import ./nixpkgs/lib.nix;
  };
  self = {
    outPath = root;
  }
  // (import ../../flake.nix).outputs {
    inherit self nixpkgs;
  };
  names = map (package: package.name);
  options = package: {
    inherit (package) version;
    inherit (package.asked) configureFlags enableSimgrid enableMPI;
    name = package.asked.pname;
    inputs = names package.asked.buildInputs;
    nativeInputs = names package.asked.nativeBuildInputs;
  };
  source = package: {
    inherit (package) version;
    inherit (package.asked.src.asked) how hash;
    from = package.asked.src.asked.url or "${package.asked.src.asked.owner}/${package.asked.src.asked.repo}";
  };
  prefixes =
    farm:
    builtins.listToAttrs (
      map (entry: {
        inherit (entry) name;
        value = entry.path.name;
      }) farm.asked.entries
    );
  shell = shell: {
    prefixes = prefixes shell.asked.STARPU_PREFIXES;
    inputs = names shell.asked.buildInputs;
    tools = names shell.asked.nativeBuildInputs;
    inherit (shell.asked) shellHook;
    modules = names (builtins.head shell.asked.DAHL_VENV.asked.paths).asked.modules;
    programs = names (builtins.tail shell.asked.DAHL_VENV.asked.paths);
  };
  packages = self.packages.${system};
in
{
  outputs = builtins.mapAttrs (kind: part: builtins.attrNames part.${system}) {
    inherit (self)
      packages
      devShells
      apps
      checks
      ;
  };
  # Forces all of it: a derivation's path depends on every argument.
  paths = builtins.mapAttrs (kind: part: builtins.mapAttrs (name: value: value.drvPath or value.program) part.${system}) {
    inherit (self)
      packages
      devShells
      apps
      checks
      ;
  };
  starpu = {
    native = options packages.starpu-native;
    simgrid = options packages.starpu-simgrid;
    traced = options packages.starpu-traced;
    cuda = options packages.starpu-cuda;
  };
  sources = {
    fxt = source packages.fxt;
    pajeng = source packages.pajeng;
    alumet-agent = source packages.alumet-agent // {
      inherit (packages.alumet-agent.asked) cargoHash cargoBuildFlags;
      inherit (packages.alumet-agent.asked.src.asked) tag;
    };
  };
  shells = builtins.mapAttrs (name: shell) self.devShells.${system};
  checks = builtins.mapAttrs (name: check: {
    commands = check.asked.buildPhase;
    tools = names check.asked.nativeBuildInputs;
  }) self.checks.${system};
  versions = packages.python-versions.asked.text;
}
