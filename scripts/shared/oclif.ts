/** What oclif writes about the commands in dist/. */
import path from 'node:path';
import {execa} from 'execa';
import {root} from './bundle.ts';

export function oclif(...args: readonly string[]): Promise<unknown> {
  return execa(process.execPath, [path.join(root, 'node_modules/oclif/bin/run.js'), ...args], {cwd: root});
}

/** Writes every command and flag into a Markdown file, between its marks. */
export function writeReference(file: string): Promise<unknown> {
  return oclif('readme', '--readme-path', file, '--no-source-links', '--tsconfig-path', 'tsconfig.json');
}
