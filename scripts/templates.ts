/** `npm run templates`: this repository's own workflows, as text that the program carries for `init github`. */
import {readFileSync, writeFileSync} from 'node:fs';
import path from 'node:path';
import {fileURLToPath} from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));

/** The workflows that a user's repository gets. */
export const templateNames = ['database-backup.yml', 'backup-verification.yml'] as const;

/** The module that holds them. A bundle of one file has no directory of templates to read from. */
export function workflowsModule(): string {
  const members = templateNames.map((name) => {
    const text = readFileSync(path.join(root, '.github/workflows', name), 'utf8');
    return `  '.github/workflows/${name}': \`${text.replace(/[\\`]|\$\{/g, '\\$&')}\`,\n`;
  });
  return [
    '/** The workflows of .github/workflows/, by their path in a repository. Written by `npm run templates`; edit those files. */\n',
    'export const workflows: Readonly<Record<string, string>> = {\n',
    ...members,
    '};\n',
  ].join('');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(path.join(root, 'src/lib/scaffold/workflows.ts'), workflowsModule());
}
