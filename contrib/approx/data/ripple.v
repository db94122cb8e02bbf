// Carries of an adder as a chain, the smallest there is. Yosys maps its cell $lcu by this.
(* techmap_celltype = "$lcu" *)
module ripple_lcu(P, G, CI, CO);
    parameter WIDTH = 2;
    input [WIDTH-1:0] P, G;
    input CI;
    output [WIDTH-1:0] CO;
    assign CO = G | (P & {CO, CI});
endmodule
