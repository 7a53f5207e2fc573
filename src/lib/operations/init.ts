/** What surrounds the program where it runs every night: workflows for GitHub Actions, units for systemd. */
import {stat} from 'node:fs/promises';
import path from 'node:path';
import {BackupError} from '../errors.ts';
import {type PlacedFile, type PlaceOptions, placeFiles} from '../scaffold/place-files.ts';
import {systemdUnits} from '../scaffold/systemd-units.ts';
import {workflows} from '../scaffold/workflows.ts';

export interface InitResult {
  /** Absolute; the paths of the files begin here. */
  directory: string;
  dryRun: boolean;
  files: PlacedFile[];
}

export interface InitGithubSettings extends PlaceOptions {
  /** Absolute; the repository is the one that this directory is in. */
  start: string;
}

/**
 * Puts the workflows that back up and verify into a repository.
 * @throws BackupError USAGE where there is no repository, OUTPUT_FAILED
 */
export async function initGithub({start, ...options}: InitGithubSettings): Promise<InitResult> {
  const directory = await repositoryOf(start);
  return {directory, dryRun: options.dryRun, files: await placeFiles(directory, workflows, options)};
}

export interface InitSystemdSettings extends PlaceOptions {
  /** Absolute; where the units are put. */
  directory: string;
  /** Absolute path of loma-backup on the machine that will run it. */
  program: string;
}

/**
 * Puts a service and a timer for systemd into a directory.
 * @throws BackupError OUTPUT_FAILED
 */
export async function initSystemd({directory, program, ...options}: InitSystemdSettings): Promise<InitResult> {
  return {directory, dryRun: options.dryRun, files: await placeFiles(directory, systemdUnits(program), options)};
}

/** The root of the git repository; `.git` is a directory there, or a file (in a worktree, in a submodule). */
async function repositoryOf(start: string): Promise<string> {
  for (let directory = start; ; directory = path.dirname(directory)) {
    if (await stat(path.join(directory, '.git')).catch(() => undefined)) return directory;
    if (directory === path.dirname(directory)) {
      throw new BackupError(`${start} is in no git repository`, {
        code: 'USAGE',
        kind: 'configuration',
        hint: 'Run it in a checkout of the repository that is to take the backups, or name one with --repository DIR.',
      });
    }
  }
}
