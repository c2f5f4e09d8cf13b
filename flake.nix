{
  description = "dahl: what does a scheduling policy cost in joules?";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      project =
        system:
        import ./nix {
          pkgs = import nixpkgs { inherit system; };
          # CUDA is not free software: only what needs it is taken from here.
          cudaPkgs = import nixpkgs {
            inherit system;
            config.allowUnfree = true;
          };
          src = self;
        };
      of = part: nixpkgs.lib.genAttrs systems (system: (project system).${part});
    in
    {
      packages = of "packages";
      devShells = of "shells";
      apps = of "apps";
      checks = of "checks";
    };
}
