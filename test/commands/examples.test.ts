/** Every example that `--help` shows is read by the parser of the command that shows it. */
import {readFileSync} from 'node:fs';
import path from 'node:path';
import {expect, test} from '@jest/globals';
import {type Command, Flags, Parser} from '@oclif/core';

const root = path.resolve(import.meta.dirname, '../..');

interface Manifest {
  commands: Record<string, {id: string; examples: string[]; relativePath: string[]}>;
}

const {commands}: Manifest = JSON.parse(readFileSync(path.join(root, 'oclif.manifest.json'), 'utf8'));
const examples = Object.values(commands).flatMap(({id, examples}) => examples.map((example) => ({id, example})));

/** The words of the program's call in an example, as a shell would hand them over: without what comes before and after it. */
function wordsOf(example: string, id: string): string[] {
  const call = /<%= config\.bin %> <%= command\.id %>([^|)>;&]*)/.exec(example)?.[1];
  if (call === undefined) throw new Error(`An example of ${id} does not call it: ${example}`);
  return (call.match(/'[^']*'|"[^"]*"|\S+/g) ?? []).map((word) => word.replace(/^(['"])(.*)\1$/, '$2'));
}

async function parse(id: string, words: readonly string[]) {
  const file = path.join(root, 'src/commands', `${id.replaceAll(':', '/')}.ts`);
  const {default: command}: {default: Command.Class} = await import(file);
  return Parser.parse([...words], {
    args: command.args,
    flags: {...command.baseFlags, ...command.flags, ...(command.enableJsonFlag ? {json: Flags.boolean()} : {})},
    strict: command.strict,
  });
}

test('every command has examples', () => {
  expect(Object.values(commands).filter((command) => command.examples.length === 0)).toEqual([]);
});

test.each(examples)('$id: $example', async ({id, example}) => {
  await expect(parse(id, wordsOf(example, id))).resolves.toBeDefined();
});

test.each([
  ['a flag that is not there', 'list', ['--jsn']],
  ['a flag without its value', 'prune', ['--keep-days']],
  ['an argument too many', 'prune', ['one']],
  ['no --to', 'files:restore', []],
])('%s would be found', async (_what, id, words) => {
  await expect(parse(id, words)).rejects.toThrow();
});
