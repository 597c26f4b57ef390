# Shell completion in bash, zsh and fish.

load ../helper/load

claudy=$scripts/claudy.ts

setup_file() {
  for shell in zsh fish; do
    command -v "$shell" >/dev/null || as_root apt-get install -o DPkg::Lock::Timeout=60 -qq -y --no-install-recommends "$shell" >&2 || true
  done
}

setup() {
  mkdir -p "$HAL9000_HOME/sessions/kept"
  touch "$HAL9000_HOME/sessions/kept/completed-session.json"
  script=$BATS_TEST_TMPDIR/completion
  # As an installation names it.
  mkdir "$BATS_TEST_TMPDIR/bin"
  ln -s "$scripts/coordinator.ts" "$BATS_TEST_TMPDIR/bin/hal9000-coordinator"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH
}

teardown() { rm "$HAL9000_HOME/sessions/kept/completed-session.json"; }

@test "bash completes commands, actions and sessions" {
  "$claudy" completion bash >"$script"
  complete_words() { # complete_words WORD...: completes the last word
    bash -c 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _${1%%-*}; printf "%s\n" "${COMPREPLY[@]}"' "$script" "$@"
  }
  complete_words claudy da | sort | xargs | grep -Fx "daemon dashboard"
  complete_words claudy daemon st | sort | xargs | grep -Fx "start status stop"
  complete_words claudy attach comp | grep -Fx completed-session
  complete_words claudy sessions rm comp | grep -Fx completed-session
  complete_words claudy --leg | grep -Fx -- --legacy
  complete_words hal9000-coordinator sto | sort | xargs | grep -Fx "stop stop-all"
  complete_words hal9000-coordinator logs --fo | grep -Fx -- --follow
  complete_words claudy --no- | sort | xargs | grep -Fx -- "--no-build --no-mcp"
}

@test "zsh completes commands, actions and sessions" {
  command -v zsh >/dev/null || skip "there is no zsh, and it could not be installed"
  "$claudy" completion zsh >"$script"
  complete_words() {
    zsh -f -c 'autoload -Uz compinit; compinit -u -D; source "$1"; [[ $_comps[claudy] == _claudy ]] || exit 1
      shift; words=("$@"); CURRENT=$#
      compadd() { shift; print -l -- "$@" }
      _describe() { print -l -- "${(@P)2%%:*}" }
      _files() { }
      _${1%%-*}' zsh "$script" "$@"
  }
  complete_words hal9000-coordinator "" | grep -Fx stop-all
  complete_words hal9000-coordinator logs "" | grep -Fx -- --follow
  complete_words claudy "" | grep -Fx daemon
  complete_words claudy daemon "" | grep -Fx restart
  complete_words claudy attach "" | grep -Fx completed-session
  complete_words claudy sessions rm "" | grep -Fx completed-session
}

@test "fish completes commands, actions and sessions" {
  command -v fish >/dev/null || skip "there is no fish, and it could not be installed"
  "$claudy" completion fish >"$script"
  complete_line() { HOME=$BATS_TEST_TMPDIR fish --no-config -c 'source $argv[1]; complete -C $argv[2]' "$script" "$1" | cut -f1; }
  complete_line "claudy da" | sort | xargs | grep -Fx "daemon dashboard"
  complete_line "claudy daemon sto" | grep -Fx stop
  complete_line "claudy attach comp" | grep -Fx completed-session
  complete_line "hal9000-coordinator sto" | sort | xargs | grep -Fx "stop stop-all"
  complete_line "hal9000-coordinator logs --fo" | grep -Fx -- --follow
  complete_line "claudy sessions --wai" | grep -Fx -- --waiting
}

@test "an unsupported shell is refused with the list of supported ones" {
  run -2 "$claudy" completion tcsh
  [[ $output == *"bash, zsh, fish"* ]]
}
