{
  description = "A stand-in for nixpkgs: nothing in it can be built.";
  outputs = { self }: { lib = import ./lib.nix; };
}
