/** Starts the command line: one way for the npm package, the single executable and a run from src/. */
import {Config, Errors, handle, type Interfaces, run, settings} from '@oclif/core';
import {BackupError} from './lib/errors.ts';
import {checkOutput, keepResult, watchOutput} from './output.ts';
import {closest} from './ui/did-you-mean.ts';
import {errorDocument, errorText} from './ui/error-text.ts';

const ignore = () => undefined;
/** oclif's own traces hold the arguments, and with them the password in a URL: `DEBUG=*` must not show them. */
const silent: Interfaces.Logger = {
  child: () => silent,
  debug: ignore,
  error: ignore,
  info: ignore,
  trace: ignore,
  warn: ignore,
  namespace: 'oclif',
};

/** @param options where the commands are */
export async function main(options: Exclude<Interfaces.LoadOptions, string | undefined>): Promise<void> {
  const given = process.argv.slice(2);
  const args = given[0] === 'help' ? [...given.slice(1), '--help'] : given;
  // With NODE_ENV=development or test, as applications set it, oclif would look for TypeScript sources of ours.
  settings.enableAutoTranspile ??= false;
  const loadOptions = {...options, logger: silent};
  watchOutput();
  try {
    await run(args, loadOptions);
    end(await checkOutput(process.exitCode));
  } catch (error) {
    const exitCode = exitCodeOf(error);
    const id = unknownCommand(error);
    if (exitCode !== undefined) end(await checkOutput(exitCode));
    else if (id === undefined) await handle(error instanceof Error ? error : new Error(String(error)));
    else await reportUnknownCommand(id, loadOptions, args.includes('--json'));
  }
}

/** How long what a command has left running may keep the process, in milliseconds. */
const patienceMs = 2000;

/**
 * Ends the process when nothing is left to do. Not by `process.exit`, as oclif does: that joins V8's compiler threads, and one of
 * them may wait for this thread to collect garbage, for ever (one in 200 interrupted uploads, Node.js 26).
 */
function end(exitCode: typeof process.exitCode): void {
  process.exitCode = exitCode;
  setTimeout(() => process.exit(), patienceMs).unref();
}

/** Of an error that a command ends with when everything was said. */
function exitCodeOf(error: unknown): number | undefined {
  return error instanceof Errors.ExitError ? error.oclif.exit : undefined;
}

/** The id of the command that oclif did not find, if that is what the error says. */
function unknownCommand(error: unknown): string | undefined {
  const message = typeof error === 'object' && error !== null && 'message' in error ? String(error.message) : '';
  return /^command (.+) not found\.?$/i.exec(message)?.[1];
}

async function reportUnknownCommand(id: string, loadOptions: Interfaces.LoadOptions, isJson: boolean): Promise<void> {
  const {bin, commandIDs} = await Config.load(loadOptions);
  const words = id.split(/[ :]/);
  const names = commandIDs.map((known) => known.replaceAll(':', ' '));
  // Words after a command that takes none look to oclif like parts of its name.
  const lengths = words.map((_, index) => words.length - index);
  const suggestion = lengths.map((count) => closest(words.slice(0, count).join(' '), names)).find(Boolean);
  const error = new BackupError(`There is no command "${words.join(' ')}"`, {
    code: 'USAGE',
    kind: 'configuration',
    hint: `${suggestion ? `Did you mean \`${bin} ${suggestion}\`? ` : ''}All commands: ${bin} --help`,
  });
  const asIs = (text: string) => text;
  const text = errorText(error, asIs);
  if (isJson) {
    keepResult(text.trimEnd());
    process.stdout.write(`${JSON.stringify(errorDocument(error, asIs), undefined, 2)}\n`);
  } else process.stderr.write(text);
  process.exitCode = await checkOutput(error.exitCode);
}
