import type { Shape } from "./tricky";
export * from "./tricky";
export interface Named { name: string }
export type Both = Named & { shape: Shape };
