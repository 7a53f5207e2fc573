/** Runs the `run` steps of a GitHub workflow as a runner does: bash with its options, the step's environment, its files. */
import {chmod, mkdir, readFile, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {execa} from 'execa';
import {parse} from 'yaml';

export interface Workflow {
  permissions: Record<string, string>;
  concurrency: {group: string; 'cancel-in-progress': boolean};
  env?: Record<string, string>;
  on: Record<string, unknown>;
  jobs: Record<string, Job>;
}

export interface Job {
  'runs-on': string;
  'timeout-minutes': number;
  permissions: Record<string, string>;
  steps: WorkflowStep[];
}

export interface WorkflowStep {
  name: string;
  uses?: string;
  run?: string;
  with?: Record<string, unknown>;
  env?: Record<string, string>;
}

export function parseWorkflow(text: string): Workflow {
  return parse(text) as Workflow;
}

export interface StepResult {
  exitCode: number | undefined;
  /** What the log of the run would show. */
  output: string;
  /** What the step wrote to GITHUB_OUTPUT. */
  outputs: Record<string, string>;
}

export interface RunnerOptions {
  /** The checked-out repository. */
  workspace: string;
  /** RUNNER_TEMP. */
  temp: string;
  /** Found before everything else. */
  path: readonly string[];
  /** Values of expressions, by their text: `secrets.DATABASE_URL`. A secret or variable that is not here is empty, as on GitHub. */
  context: Readonly<Record<string, string>>;
}

/** @throws Error for an expression that is neither given nor a secret or variable */
function evaluated(text: string, context: RunnerOptions['context']): string {
  return text.replace(/\$\{\{ (.*?) \}\}/g, (_, expression: string) => {
    const value = context[expression] ?? (/^(secrets|vars)\.\w+$/.test(expression) ? '' : undefined);
    if (value === undefined) throw new Error(`The test gives no value for \${{ ${expression} }}.`);
    return value;
  });
}

export async function runStep(
  workflow: Workflow,
  jobName: string,
  stepName: string,
  options: RunnerOptions,
): Promise<StepResult> {
  const step = workflow.jobs[jobName]?.steps.find(({name}) => name === stepName);
  if (step?.run === undefined) throw new Error(`There is no step ${stepName} with \`run\` in ${jobName}.`);
  const {temp, workspace, context} = options;
  await mkdir(temp, {recursive: true});
  const script = path.join(temp, 'step.sh');
  const outputFile = path.join(temp, 'github-output');
  await writeFile(script, evaluated(step.run, context));
  await writeFile(outputFile, '');
  const environment = Object.fromEntries(
    Object.entries({...workflow.env, ...step.env}).map(([name, text]) => [name, evaluated(String(text), context)]),
  );
  // The words that `shell: bash` stands for: docs.github.com, "Workflow syntax", jobs.<job_id>.steps[*].shell.
  const {exitCode, all} = await execa('bash', ['--noprofile', '--norc', '-eo', 'pipefail', script], {
    cwd: workspace,
    env: {
      PATH: [...options.path, process.env.PATH].join(path.delimiter),
      HOME: temp,
      RUNNER_TEMP: temp,
      GITHUB_OUTPUT: outputFile,
      GITHUB_SERVER_URL: 'https://github.com',
      GITHUB_REPOSITORY: 'clinic/records',
      GITHUB_SHA: '0123456789abcdef0123456789abcdef01234567',
      ...environment,
    },
    extendEnv: false,
    reject: false,
    all: true,
    stdin: 'ignore',
    timeout: 120_000,
  });
  return {exitCode, output: all, outputs: parseOutputs(await readFile(outputFile, 'utf8'))};
}

/** `name<<DELIMITER`, lines, `DELIMITER`: the form of GITHUB_OUTPUT for values of several lines. */
function parseOutputs(text: string): Record<string, string> {
  const matches = text.matchAll(/^([\w-]+)<<(.+)\n([\s\S]*?)^\2$/gm);
  return Object.fromEntries([...matches].map(([, name = '', , value = '']) => [name, value.replace(/\n$/, '')]));
}

/** An executable for a directory that is put first in PATH. */
export async function putProgram(directory: string, name: string, text: string): Promise<void> {
  await mkdir(directory, {recursive: true});
  const file = path.join(directory, name);
  await writeFile(file, text);
  await chmod(file, 0o755);
}
