import { suite } from "uvu";
import * as assert from "uvu/assert";
import { programSettings } from "../../lib/project/git-settings.ts";

const test = suite("git-settings");

test("programSettings() finds nothing in what git writes by itself", () => {
  const text = `[core]
	repositoryformatversion = 0
	filemode = true
	bare = false
	logallrefupdates = true
	worktree = ../../../sub
[submodule]
	active = .
[remote "origin"]
	url = git@example.com:a/b.git
	fetch = +refs/heads/*:refs/remotes/origin/*
[branch "main"]
	remote = origin
	merge = refs/heads/main
	vscode-merge-base = origin/main
[submodule "libs/x"]
	url = https://example.com/x
	active = true
[extensions]
	worktreeConfig = true
[filter "lfs"]
	required = true
	clean = git-lfs clean -- %f
	smudge = git-lfs smudge -- %f
	process = git-lfs filter-process
[user]
	email = a@b
`;
  assert.equal(programSettings(text), []);
});

test("programSettings() finds each setting that runs a program", () => {
  const cases = [
    ["[core]\n\tfsmonitor = touch x", "core.fsmonitor=touch x"],
    ["[core]hooksPath=evil", "core.hooksPath=evil"],
    ["[CORE] SSHCommand = evil", "core.SSHCommand=evil"],
    ["[core]\n\tsshcommand \\\n = evil", "core.sshcommand=evil"],
    ['[filter "a]b\\"c"]\n clean = evil', 'filter.a]b\\"c.clean=evil'],
    [
      "[filter.lfs]\n clean = git-lfs clean -- %f; evil",
      "filter.lfs.clean=git-lfs clean -- %f; evil",
    ],
    ["[alias]\n st = !evil", "alias.st=!evil"],
    ["[include]\n path = evil", "include.path=evil"],
    ['[includeIf "gitdir:/"]\n path = evil', "includeif.gitdir:/.path=evil"],
    ['[remote "x"]\n url = ext::evil', "remote.x.url=ext::evil"],
    ['[remote "x"]\n uploadpack = evil', "remote.x.uploadpack=evil"],
    ['[submodule "x"]\n update = !evil', "submodule.x.update=!evil"],
    ['[diff "x"]\n textconv = evil', "diff.x.textconv=evil"],
    ['[merge "x"]\n driver = evil', "merge.x.driver=evil"],
    ["[credential]\n helper = evil", "credential.helper=evil"],
    ['[hook "x"]\n command = evil', "hook.x.command=evil"],
    ["[gpg]\n program = evil", "gpg.program=evil"],
    ["[core\n fsmonitor = evil", "[core"],
    ["what is this", "what is this"],
  ];
  for (const [text = "", expected = ""] of cases) {
    const found = programSettings(`[user]\n name = a\n${text}\n`);
    assert.is(found[0], expected);
  }
});

test.run();
