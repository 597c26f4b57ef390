// Finds the settings of a git-config(1) file that may run a program. Those that cannot are
// listed: git gets new ones that can.

/** SECTION.KEY, in lower case, without the subsection. */
const harmless = [
  /^core\.(abbrev|autocrlf|bare|bigfilethreshold|checkstat|commitgraph|compression|eol|excludesfile|filemode|fscache|hidedotfiles|ignorecase|logallrefupdates|longpaths|multipackindex|precomposeunicode|preloadindex|protecthfs|protectntfs|quotepath|repositoryformatversion|safecrlf|sharedrepository|sparsecheckout|sparsecheckoutcone|splitindex|symlinks|trustctime|untrackedcache|whitespace|worktree)$/,
  /^remote\.(fetch|mirror|partialclonefilter|promisor|prune|push|pushdefault|skipdefaultupdate|skipfetchall|tagopt)$/,
  /^submodule\.(active|branch|fetchjobs|fetchrecursesubmodules|ignore|propagateblobs|recurse)$/,
  /^extensions\.(objectformat|partialclone|preciousobjects|refstorage|worktreeconfig)$/,
  /^user\.(email|name|signingkey|useconfigonly)$/,
  /^(advice|apply|branch|color|column|feature|fetch|gc|gitflow|index|init|log|maintenance|pack|pull|push|rebase|rerere|stash|status|tag|transfer)\.(?!.*(cmd|command|program))[\w-]+$/,
  /^commit\.(gpgsign|template|verbose)$/,
  /^(diff|merge)\.(?!(external|command|textconv|driver)$)[\w-]+$/,
  /^lfs\.(access|fetchexclude|fetchinclude|locksverify|repositoryformatversion|url)$/,
];

/** SECTION.KEY=VALUE: programs of git itself or of Git LFS, and URLs that name none. */
const harmlessValues = [
  /^core\.fsmonitor=(true|false|)$/,
  /^(remote|submodule)\.(url|pushurl)=(?!\w+::)/,
  /^submodule\.update=(checkout|merge|none|rebase)$/,
  /^filter\.(clean|smudge)=git-lfs (clean|smudge)( --skip)? -- %f$/,
  /^filter\.process=git-lfs filter-process( --skip)?$/,
  /^filter\.required=/,
];

/** The settings that may run a program, as NAME=VALUE, in their order. */
export function programSettings(text: string): string[] {
  const found: string[] = [];
  let section = "";
  let subsection = "";
  // A value continues on the next line.
  for (let line of text.replace(/\\\r?\n/g, "").split("\n")) {
    const header =
      /^\s*\[\s*([\w-]+)(?:\.([\w.-]+))?\s*(?:"((?:[^"\\]|\\.)*)")?\s*\]/
        .exec(line);
    if (header) {
      section = (header[1] ?? "").toLowerCase();
      subsection = header[2] ?? header[3] ?? "";
      line = line.slice(header[0].length);
    }
    line = line.trim();
    if (line === "" || /^[#;]/.test(line)) continue;
    const [, key, value = ""] = /^([\w-]+)\s*(?:=\s*(.*))?$/.exec(line) ?? [];
    if (key === undefined) found.push(line); // git may read it in another way
    else if (!isHarmless(`${section}.${key.toLowerCase()}`, value)) {
      const name = [section, subsection, key].filter(Boolean).join(".");
      found.push(`${name}=${value}`);
    }
  }
  return found;
}

function isHarmless(name: string, value: string): boolean {
  return harmless.some((pattern) => pattern.test(name)) ||
    harmlessValues.some((pattern) => pattern.test(`${name}=${value}`));
}
