// The texts in the sources, from the compiler's syntax tree.

import { readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { type Node, SyntaxKind } from "typescript/unstable/ast";
import * as is from "typescript/unstable/ast/is";
import { API } from "typescript/unstable/async";

export interface Text {
  /** File and line. */
  at: string;
  /** With X in place of each expression. */
  text: string;
}

/** All texts in the sources of `folders`; one with a condition for each of its outcomes. */
export async function sourceTexts(
  root: string,
  folders: string[],
): Promise<Text[]> {
  const api = new API({ cwd: root });
  try {
    const snapshot = await api.updateSnapshot({
      openProjects: [join(root, "tsconfig.json")],
    });
    const program = snapshot.getProjects()[0]?.program;
    const files = folders.flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true })
        .map((name) => join(root, folder, String(name)))
        .filter((path) => path.endsWith(".ts"))
    ).sort();
    const found: Text[] = [];
    for (const file of files) {
      const source = await program?.getSourceFile(file);
      if (!source) throw new Error(`${file} is not part of tsconfig.json`);
      const visit = (node: Node): void => {
        if (is.isImportDeclaration(node) || is.isTypeNode(node)) return;
        const texts = isCommandName(node) ? [] : textsOf(node);
        if (!texts) return node.forEachChild((child) => void visit(child));
        const line = source.text.slice(0, node.getStart()).split("\n").length;
        const at = `${relative(root, file)}:${line}`;
        found.push(...texts.map((text) => ({ at, text })));
      };
      source.forEachChild((child) => void visit(child));
    }
    return found;
  } finally {
    await api.close();
  }
}

/** In `command("claudy stop")` the text names a command without its arguments. */
function isCommandName({ parent }: Node): boolean {
  return is.isCallExpression(parent) && is.isIdentifier(parent.expression) &&
    /[cC]ommand$/.test(parent.expression.text);
}

/** The possible texts of an expression; undefined if it is not a text. */
function textsOf(node: Node): string[] | undefined {
  if (is.isStringLiteral(node) || is.isNoSubstitutionTemplateLiteral(node)) {
    return [node.text];
  }
  if (is.isParenthesizedExpression(node)) return textsOf(node.expression);
  if (is.isConditionalExpression(node)) {
    return either(textsOf(node.whenTrue), textsOf(node.whenFalse));
  }
  if (is.isTemplateExpression(node)) {
    return node.templateSpans.reduce<string[]>(
      (texts, { expression, literal }) =>
        joined(texts, textsOf(expression) ?? ["X"], [literal.text]),
      [node.head.text],
    );
  }
  if (
    is.isBinaryExpression(node) &&
    node.operatorToken.kind === SyntaxKind.PlusToken
  ) {
    const [left, right] = [textsOf(node.left), textsOf(node.right)];
    if (!left && !right) return undefined;
    return joined(left ?? ["X"], right ?? ["X"]);
  }
  return undefined;
}

function either(
  one: string[] | undefined,
  other: string[] | undefined,
): string[] | undefined {
  if (!one && !other) return undefined;
  return [...(one ?? ["X"]), ...(other ?? ["X"])];
}

/** Each combination. */
function joined(...parts: string[][]): string[] {
  return parts.reduce((texts, ends) =>
    texts.flatMap((text) => ends.map((end) => text + end))
  );
}
